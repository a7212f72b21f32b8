# nvcc for kernels/cuda (docs/notes/cuda-build.md). Sets CARAVAN_HAS_CUDA; where it is false, nothing of CUDA is asked for.
set(CARAVAN_CUDA AUTO CACHE STRING "GPU kernels: AUTO (where CUDA 12.8 or later is found), ON or OFF")
set_property(CACHE CARAVAN_CUDA PROPERTY STRINGS AUTO ON OFF)
# Machine code for Ampere and Hopper; the intermediate code (PTX) that comes with 90 lets newer GPUs' drivers make theirs.
set(CARAVAN_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "GPU architectures, as CMake's CUDA_ARCHITECTURES")
set(caravan_least_cuda 12.8)

# caravan_find_cuda(<variable>): empty when a usable nvcc was found, else what is wrong in words.
function(caravan_find_cuda result)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)  # check_language remembers that there was none; one may have come since
  endif()
  if(NOT DEFINED ENV{CUDACXX} AND NOT CMAKE_CUDA_COMPILER)
    # CMake 3.25 looks along PATH only.
    find_program(CARAVAN_NVCC nvcc PATHS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
    mark_as_advanced(CARAVAN_NVCC)
    if(CARAVAN_NVCC)
      set(ENV{CUDACXX} ${CARAVAN_NVCC})
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(${result} "no working nvcc was found (PATH, CUDACXX, CUDA_HOME, /usr/local/cuda)" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT text MATCHES "release ([0-9]+\\.[0-9]+)")
    set(${result} "${CMAKE_CUDA_COMPILER} --version names no release" PARENT_SCOPE)
  elseif(CMAKE_MATCH_1 VERSION_LESS caravan_least_cuda)
    set(${result} "${CMAKE_CUDA_COMPILER} is of CUDA ${CMAKE_MATCH_1}, and ${caravan_least_cuda} is needed" PARENT_SCOPE)
  else()
    set(${result} "" PARENT_SCOPE)
  endif()
endfunction()

if(NOT CARAVAN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CARAVAN_CUDA=${CARAVAN_CUDA}: there are AUTO, ON and OFF")
endif()
set(CARAVAN_HAS_CUDA FALSE)
if(NOT CARAVAN_CUDA STREQUAL OFF)
  caravan_find_cuda(problem)
  if(NOT problem)
    set(CARAVAN_HAS_CUDA TRUE)
  elseif(CARAVAN_CUDA STREQUAL ON)
    message(FATAL_ERROR "CARAVAN_CUDA=ON: ${problem}; install a CUDA toolkit, or name its nvcc with "
                        "-DCMAKE_CUDA_COMPILER=.../bin/nvcc, or build for CPUs alone with -DCARAVAN_CUDA=OFF")
  else()
    message(STATUS "Building without GPU kernels: ${problem}")
  endif()
endif()

if(CARAVAN_HAS_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES ${CARAVAN_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  # CMake 3.25 knows no flag of nvcc for C++20 and would fall back to C++17 without a word.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  find_package(CUDAToolkit ${caravan_least_cuda} REQUIRED)
  message(STATUS "GPU kernels: CUDA ${CUDAToolkit_VERSION} for ${CARAVAN_CUDA_ARCHITECTURES}")
endif()

# caravan_cuda_options(<target>): how .cu files are compiled. What ptxas says of registers and spills stays beside each
# object file (scripts/check_registers.py reads it). g++ sees the same sources with all our warnings in
# tests/host_runner.
function(caravan_cuda_options target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xptxas=-v;-lineinfo;-Xcompiler=-Wall,-Wextra>)
  set(launcher ${CMAKE_SOURCE_DIR}/cmake/nvcc_with_report.sh)
  if(CARAVAN_CCACHE)
    list(APPEND launcher ${CARAVAN_CCACHE})
  endif()
  set_target_properties(${target} PROPERTIES CUDA_COMPILER_LAUNCHER "${launcher}")
endfunction()

# kernels/cuda/*.cu, and the C++ that needs CUDA's headers beside them, as caravan_kernels_cuda. Sources of
# kernels/cuda/hopper use what only sm_90a has (wgmma, bulk copies) and are compiled for nothing else. The runtime is
# linked statically and the driver's library never, so that the program starts where there is no driver.
function(caravan_cuda_kernels)
  if(NOT CARAVAN_HAS_CUDA)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cpp
       ${CMAKE_SOURCE_DIR}/kernels/cuda/hopper/*.cpp)
  file(GLOB hopper_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/hopper/*.cu)
  add_library(caravan_kernels_cuda STATIC ${sources})
  target_link_libraries(caravan_kernels_cuda PUBLIC caravan_flags caravan_kernels_reference caravan_kernels_cudnn
                        CUDA::cudart_static)
  target_include_directories(caravan_kernels_cuda PUBLIC ${CMAKE_SOURCE_DIR})
  string(REPLACE ";" " " architectures "${CARAVAN_CUDA_ARCHITECTURES}")
  target_compile_definitions(caravan_kernels_cuda PUBLIC CARAVAN_HAS_CUDA
                             PRIVATE "CARAVAN_CUDA_ARCHITECTURES=\"${architectures}\"")
  set_target_properties(caravan_kernels_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static)
  caravan_cuda_options(caravan_kernels_cuda)
  if(hopper_sources)
    add_library(caravan_kernels_hopper OBJECT ${hopper_sources})
    target_link_libraries(caravan_kernels_hopper PUBLIC caravan_flags caravan_core caravan_backend)
    target_include_directories(caravan_kernels_hopper PRIVATE ${CMAKE_SOURCE_DIR})
    set_target_properties(caravan_kernels_hopper PROPERTIES CUDA_ARCHITECTURES 90a-real)
    caravan_cuda_options(caravan_kernels_hopper)
    target_sources(caravan_kernels_cuda PRIVATE $<TARGET_OBJECTS:caravan_kernels_hopper>)
  endif()
endfunction()
