# Debian's libraries; scripts/install_deps.sh lists the packages.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)  # tests only: a second opinion on our own ZIP code
set(MPI_CXX_SKIP_MPICXX TRUE)  # the C interface only: the old C++ one drags in a library of its own
find_package(MPI REQUIRED COMPONENTS CXX)
set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 REQUIRED COMPONENTS C)
if(NOT HDF5_IS_PARALLEL)
  message(FATAL_ERROR "HDF5 was found without MPI; install libhdf5-openmpi-dev (scripts/install_deps.sh)")
endif()
# The pthread build: spinning OpenMP threads of two ranks on one machine cost more than they give.
find_library(CARAVAN_OPENBLAS NAMES openblas PATH_SUFFIXES openblas-pthread REQUIRED)
find_path(CARAVAN_OPENBLAS_INCLUDE NAMES cblas.h PATH_SUFFIXES openblas-pthread x86_64-linux-gnu/openblas-pthread
          aarch64-linux-gnu/openblas-pthread REQUIRED)
add_library(caravan_openblas INTERFACE)
target_link_libraries(caravan_openblas INTERFACE ${CARAVAN_OPENBLAS})
target_include_directories(caravan_openblas SYSTEM INTERFACE ${CARAVAN_OPENBLAS_INCLUDE})
