// What of NCCL's binary interface is used, declared here: the library is opened at run time and its headers
// are not needed to build. The values are those of nccl.h of every version from 2.18 up to, but without, 3.
#pragma once

#include <cstddef>

namespace caravan::nccl {

struct Comm;  // ncclComm_t points to one

/// ncclUniqueId.
struct UniqueId {
  char bytes[128];
};

/// ncclResult_t
enum Result : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

/// ncclDataType_t
enum Type : int { kInt8 = 0, kInt64 = 4, kFloat16 = 6, kFloat32 = 7, kFloat64 = 8, kBFloat16 = 9 };

/// ncclRedOp_t
enum Reduction : int { kSum = 0, kMax = 2, kMin = 3 };

/// The functions: all_reduce is ncclAllReduce. `stream` is a cudaStream_t.
struct Table {
  int (*get_version)(int* version);
  int (*get_unique_id)(UniqueId* id);
  int (*comm_init_rank)(Comm** comm, int ranks, UniqueId id, int rank);
  int (*comm_destroy)(Comm* comm);
  int (*comm_abort)(Comm* comm);
  int (*comm_get_async_error)(Comm* comm, int* error);
  const char* (*get_error_string)(int result);
  const char* (*get_last_error)(Comm* comm);
  int (*all_reduce)(const void* from, void* to, std::size_t count, int type, int op, Comm* comm,
                    void* stream);
  int (*broadcast)(const void* from, void* to, std::size_t count, int type, int root, Comm* comm,
                   void* stream);
  int (*all_gather)(const void* from, void* to, std::size_t count_of_part, int type, Comm* comm,
                    void* stream);
  int (*reduce_scatter)(const void* from, void* to, std::size_t count_of_part, int type, int op, Comm* comm,
                        void* stream);
  int (*send)(const void* from, std::size_t count, int type, int peer, Comm* comm, void* stream);
  int (*recv)(void* to, std::size_t count, int type, int peer, Comm* comm, void* stream);
  int (*group_start)();
  int (*group_end)();
};

/// Calls visit("AllReduce", table.all_reduce) for every function.
template <class Visit>
void for_each_function(Table& table, const Visit& visit) {
  visit("GetVersion", table.get_version);
  visit("GetUniqueId", table.get_unique_id);
  visit("CommInitRank", table.comm_init_rank);
  visit("CommDestroy", table.comm_destroy);
  visit("CommAbort", table.comm_abort);
  visit("CommGetAsyncError", table.comm_get_async_error);
  visit("GetErrorString", table.get_error_string);
  visit("GetLastError", table.get_last_error);
  visit("AllReduce", table.all_reduce);
  visit("Broadcast", table.broadcast);
  visit("AllGather", table.all_gather);
  visit("ReduceScatter", table.reduce_scatter);
  visit("Send", table.send);
  visit("Recv", table.recv);
  visit("GroupStart", table.group_start);
  visit("GroupEnd", table.group_end);
}

}  // namespace caravan::nccl
