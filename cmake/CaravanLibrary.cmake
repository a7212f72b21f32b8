# Flags for our own code, and one static library per folder.
add_library(caravan_flags INTERFACE)
target_include_directories(caravan_flags INTERFACE ${CMAKE_SOURCE_DIR}/include)
# nvcc knows none of these; its own are in CaravanCuda.cmake.
set(not_cuda "$<NOT:$<COMPILE_LANGUAGE:CUDA>>")
target_compile_options(caravan_flags INTERFACE
                       $<${not_cuda}:-Wall;-Wextra;-Wconversion;-Wshadow;-Wnon-virtual-dtor;-Werror>)
if(CARAVAN_SANITIZE)
  # Under the sanitizers GCC 12 sees uninitialised values and overlapping strings where there are none (GCC bugs 105562,
  # 105651).
  target_compile_options(caravan_flags INTERFACE
                         "$<${not_cuda}:-fsanitize=${CARAVAN_SANITIZE};-fno-sanitize-recover=all>"
                         $<${not_cuda}:-fno-omit-frame-pointer>
                         $<$<AND:${not_cuda},$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized;-Wno-restrict>)
  target_link_options(caravan_flags INTERFACE -fsanitize=${CARAVAN_SANITIZE})
endif()
if(CARAVAN_FUZZ)
  # Coverage for libFuzzer in everything; its main only in the targets (tests/fuzz).
  target_compile_options(caravan_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(CARAVAN_COVERAGE)
  # -O1: as fast as tests need it, and lines still map to code. Counters are atomic because worker threads share them;
  # ranks and programs that end at the same time lock the files they add their counts to.
  target_compile_options(caravan_flags INTERFACE $<${not_cuda}:-O1;-g;--coverage;-fprofile-update=atomic>)
  target_link_options(caravan_flags INTERFACE --coverage)
endif()

# caravan_library(<folder> LINK ... PRIVATE_LINK ...): every src/<folder>/*.cpp.
function(caravan_library folder)
  cmake_parse_arguments(ARG "" "" "LINK;PRIVATE_LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${folder}/*.cpp)
  if(sources)
    add_library(caravan_${folder} STATIC ${sources})
    target_link_libraries(caravan_${folder} PUBLIC caravan_flags ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK})
  else()
    add_library(caravan_${folder} INTERFACE)
    target_link_libraries(caravan_${folder} INTERFACE caravan_flags ${ARG_LINK})
  endif()
endfunction()

# kernels/reference is headers; kernels/cpu is compiled once per instruction set under kernels/cpu/simd/ and the
# best one the machine has is chosen at run time (kernels/cpu/dispatch.h).
function(caravan_kernels)
  # cuDNN's interface is declared there and the library opened at run time: built everywhere.
  file(GLOB cudnn_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cudnn/*.cpp)
  add_library(caravan_kernels_cudnn STATIC ${cudnn_sources})
  target_link_libraries(caravan_kernels_cudnn PUBLIC caravan_flags caravan_core caravan_backend
                        PRIVATE ${CMAKE_DL_LIBS})
  target_include_directories(caravan_kernels_cudnn PUBLIC ${CMAKE_SOURCE_DIR})
  add_library(caravan_kernels_reference INTERFACE)
  target_link_libraries(caravan_kernels_reference INTERFACE caravan_core caravan_backend)
  target_include_directories(caravan_kernels_reference INTERFACE ${CMAKE_SOURCE_DIR})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cpu/*.cpp
       ${CMAKE_SOURCE_DIR}/kernels/reference/*.cpp)
  file(GLOB simd_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cpu/simd/*.cpp)
  if(NOT sources)
    add_library(caravan_kernels_cpu INTERFACE)
    target_link_libraries(caravan_kernels_cpu INTERFACE caravan_kernels_reference)
    return()
  endif()
  add_library(caravan_kernels_cpu STATIC ${sources})
  target_link_libraries(caravan_kernels_cpu PUBLIC caravan_flags caravan_kernels_reference
                        PRIVATE caravan_openblas)
  set(levels baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND levels avx2 avx512)
  endif()
  set(flags_baseline "")
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
  foreach(level IN LISTS levels)
    if(simd_sources)
      add_library(caravan_simd_${level} OBJECT ${simd_sources})
      target_link_libraries(caravan_simd_${level} PUBLIC caravan_flags caravan_core caravan_backend)
      target_include_directories(caravan_simd_${level} PRIVATE ${CMAKE_SOURCE_DIR})
      target_compile_options(caravan_simd_${level} PRIVATE ${flags_${level}} -O3 -fopenmp-simd -fno-math-errno
                             -fno-trapping-math -ffp-contract=fast)
      target_compile_definitions(caravan_simd_${level} PRIVATE CARAVAN_SIMD_LEVEL=${level})
      target_sources(caravan_kernels_cpu PRIVATE $<TARGET_OBJECTS:caravan_simd_${level}>)
      string(TOUPPER ${level} upper)
      target_compile_definitions(caravan_kernels_cpu PRIVATE CARAVAN_HAS_SIMD_${upper})
    endif()
  endforeach()
endfunction()

# What answers when the program asks for a device: CUDA, or a word that there is none (kernels/cuda/open_device.h).
function(caravan_device)
  if(CARAVAN_HAS_CUDA)
    add_library(caravan_device ALIAS caravan_kernels_cuda)
    return()
  endif()
  add_library(caravan_device STATIC ${CMAKE_SOURCE_DIR}/kernels/no_cuda/open_device.cpp
                                    ${CMAKE_SOURCE_DIR}/kernels/no_cuda/device_streams.cpp)
  target_link_libraries(caravan_device PUBLIC caravan_flags caravan_kernels_reference caravan_kernels_cudnn)
endfunction()

# The program: everything of src/app but main.cpp is a library too, so that tests/unit/app can call it.
function(caravan_program)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/app/*.cpp)
  list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/src/app/main.cpp)
  add_library(caravan_app STATIC ${sources})
  target_link_libraries(caravan_app PUBLIC caravan_flags caravan_federated caravan_train caravan_kernels_cpu
                        caravan_kernels_cudnn caravan_build_info CLI11::CLI11
                        PRIVATE caravan_openblas nlohmann_json::nlohmann_json MPI::MPI_CXX)
  target_include_directories(caravan_app PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_definitions(caravan_app PRIVATE CARAVAN_HDF5_VERSION="${HDF5_VERSION}")
  add_executable(caravan ${CMAKE_SOURCE_DIR}/src/app/main.cpp)
  target_link_libraries(caravan PRIVATE caravan_app caravan_device)
endfunction()
