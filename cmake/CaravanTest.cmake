# Tests found by their place in the tree; their first lines say how to run them.
add_library(caravan_test_support STATIC ${CMAKE_SOURCE_DIR}/tests/support/main.cpp)
file(GLOB support_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/support/*.cpp)
target_sources(caravan_test_support PRIVATE ${support_sources})
target_include_directories(caravan_test_support PUBLIC ${CMAKE_SOURCE_DIR}/tests ${CMAKE_SOURCE_DIR})
target_link_libraries(caravan_test_support PUBLIC caravan_flags caravan_federated caravan_kernels_cpu
                      caravan_build_info nlohmann_json::nlohmann_json Catch2::Catch2 MPI::MPI_CXX
                      PkgConfig::LIBZIP)

# Several ranks on few cores: yield instead of spinning, one BLAS thread each. No output of mpirun's own.
set(caravan_test_environment
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
    OPENBLAS_NUM_THREADS=1
    CUDA_VISIBLE_DEVICES=  # tests are of the CPU, but those of tests/device named gpu
    "ASAN_OPTIONS=fast_unwind_on_malloc=0"
    "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/lsan.supp:print_suppressions=0"
    CARAVAN_SOURCE_DIR=${CMAKE_SOURCE_DIR} CARAVAN_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/caravan)

function(caravan_test_header file comment)
  file(STRINGS ${file} head LIMIT_COUNT 6)
  set(ranks "" PARENT_SCOPE)
  set(labels cpu)
  set(timeout 300 PARENT_SCOPE)
  foreach(line IN LISTS head)
    if(line MATCHES "^${comment} RANKS (.*)$")
      separate_arguments(found UNIX_COMMAND "${CMAKE_MATCH_1}")
      set(ranks ${found} PARENT_SCOPE)
    elseif(line MATCHES "^${comment} LABELS (.*)$")
      separate_arguments(found UNIX_COMMAND "${CMAKE_MATCH_1}")
      list(APPEND labels ${found})
    elseif(line MATCHES "^${comment} TIMEOUT ([0-9]+)$")
      set(timeout ${CMAKE_MATCH_1} PARENT_SCOPE)
    endif()
  endforeach()
  set(labels ${labels} PARENT_SCOPE)
endfunction()

function(caravan_test_properties name)
  if(CARAVAN_SANITIZE)  # several times slower
    math(EXPR timeout "4 * ${timeout}")
  endif()
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${caravan_test_environment}" LABELS "${labels}"
                       TIMEOUT ${timeout} SKIP_RETURN_CODE 77)
  # Tests choose how tensors travel; whoever runs them may have chosen for runs of his own. Those of a GPU can be told.
  if(NOT name MATCHES "^gpu\\.")
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT_MODIFICATION COMM_BACKEND=unset:)
  endif()
  if("gpu" IN_LIST labels)
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT_MODIFICATION CUDA_VISIBLE_DEVICES=unset:)
  endif()
endfunction()

# caravan_add_test_program(<file> <name> <program>): the program of a test file, and its test for every number of ranks.
function(caravan_add_test_program file name program)
  caravan_test_header(${file} "//")
  add_executable(${program} ${file})
  target_link_libraries(${program} PRIVATE caravan_test_support)
  if(ranks)
    foreach(n IN LISTS ranks)
      add_test(NAME ${name}.np${n} COMMAND ${MPIEXEC_EXECUTABLE} --quiet -n ${n} $<TARGET_FILE:${program}>)
      set(saved ${labels})
      list(APPEND labels mpi)
      caravan_test_properties(${name}.np${n})
      if(CARAVAN_SANITIZE)
        # LeakSanitizer itself crashes in the threads Open MPI leaves behind; tests without mpirun do look for leaks.
        set_property(TEST ${name}.np${n} APPEND PROPERTY ENVIRONMENT
                     "ASAN_OPTIONS=fast_unwind_on_malloc=0:detect_leaks=0")
      endif()
      set_tests_properties(${name}.np${n} PROPERTIES PROCESSORS ${n})
      set(labels ${saved})
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${program})
    caravan_test_properties(${name})
  endif()
endfunction()

function(caravan_add_test file)
  file(RELATIVE_PATH relative ${CMAKE_SOURCE_DIR}/tests ${file})
  string(REGEX REPLACE "\\.cpp$" "" stem ${relative})
  string(REPLACE "/" "." name ${stem})
  string(REPLACE "test_" "" name ${name})
  string(REPLACE "." "_" program test_${name})
  caravan_add_test_program(${file} ${name} ${program})
  if(stem MATCHES "^unit/app/")
    target_link_libraries(${program} PRIVATE caravan_app caravan_device)
  elseif(stem MATCHES "^unit/cudnn/")
    target_link_libraries(${program} PRIVATE caravan_kernels_cudnn caravan_kernels_reference)
    target_compile_definitions(${program} PRIVATE CARAVAN_FAKE_CUDNN="$<TARGET_FILE:fake_cudnn>")
    add_dependencies(${program} fake_cudnn)
  elseif(stem MATCHES "^cuda/")
    target_link_libraries(${program} PRIVATE caravan_kernels_cuda)
  endif()
endfunction()

# caravan_add_device_test(<file> <kind> <library>): a test of tests/device over the device that the library opens.
function(caravan_add_device_test file kind library)
  get_filename_component(stem ${file} NAME_WE)
  string(REPLACE "test_" "" stem ${stem})
  caravan_add_test_program(${file} ${kind}.${stem} test_${kind}_${stem})
  target_link_libraries(test_${kind}_${stem} PRIVATE caravan_app ${library})
  if(kind STREQUAL emulated)
    target_compile_definitions(test_${kind}_${stem} PRIVATE CARAVAN_FAKE_CUDNN="$<TARGET_FILE:fake_cudnn>")
    add_dependencies(test_${kind}_${stem} fake_cudnn)
  endif()
  if(kind STREQUAL gpu)
    # Other tests see no GPU.
    get_property(all DIRECTORY PROPERTY TESTS)
    foreach(test IN LISTS all)
      if(test MATCHES "^gpu\\.${stem}(\\.np[0-9]+)?$")
        set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT_MODIFICATION CUDA_VISIBLE_DEVICES=unset:)
        set_property(TEST ${test} APPEND PROPERTY LABELS gpu)
      endif()
    endforeach()
  endif()
endfunction()

function(caravan_add_script_test file)
  get_filename_component(stem ${file} NAME_WE)
  string(REPLACE "test_" "" stem ${stem})
  caravan_test_header(${file} "#")
  get_filename_component(extension ${file} EXT)
  if(extension STREQUAL ".py")
    add_test(NAME integration.${stem} COMMAND ${CMAKE_SOURCE_DIR}/scripts/test_python.sh ${file})
  else()
    add_test(NAME integration.${stem} COMMAND bash ${file})
  endif()
  list(APPEND labels integration)
  caravan_test_properties(integration.${stem})
  set_tests_properties(integration.${stem} PROPERTIES PROCESSORS 2)
endfunction()
