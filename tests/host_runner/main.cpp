// The main of the host-kernels programs: no MPI, so that it starts under every sanitizer.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
