# Commit and build options as a generated source file, refreshed at every build, rewritten only when it changes.
set(build_info ${CMAKE_BINARY_DIR}/build_info.cpp)
add_custom_target(
  caravan_build_info_refresh
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${build_info} -DSOURCE=${CMAKE_SOURCE_DIR} -DVERSION=${PROJECT_VERSION}
          -DBUILD_TYPE=${CMAKE_BUILD_TYPE} -DSANITIZE=${CARAVAN_SANITIZE}
          -DCOMPILER=${CMAKE_CXX_COMPILER_ID}-${CMAKE_CXX_COMPILER_VERSION}
          -P ${CMAKE_SOURCE_DIR}/cmake/write_build_info.cmake
  BYPRODUCTS ${build_info})
add_library(caravan_build_info STATIC ${build_info})
target_include_directories(caravan_build_info PUBLIC ${CMAKE_SOURCE_DIR}/include)
add_dependencies(caravan_build_info caravan_build_info_refresh)
