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

/// The functions, with the names they have in the library behind "nccl". `stream` is a cudaStream_t.
struct Table {
  int (*GetVersion)(int* version);
  int (*GetUniqueId)(UniqueId* id);
  int (*CommInitRank)(Comm** comm, int ranks, UniqueId id, int rank);
  int (*CommDestroy)(Comm* comm);
  int (*CommAbort)(Comm* comm);
  int (*CommGetAsyncError)(Comm* comm, int* error);
  const char* (*GetErrorString)(int result);
  const char* (*GetLastError)(Comm* comm);
  int (*AllReduce)(const void* from, void* to, std::size_t count, int type, int op, Comm* comm, void* stream);
  int (*Broadcast)(const void* from, void* to, std::size_t count, int type, int root, Comm* comm,
                   void* stream);
  int (*AllGather)(const void* from, void* to, std::size_t count_of_part, int type, Comm* comm, void* stream);
  int (*ReduceScatter)(const void* from, void* to, std::size_t count_of_part, int type, int op, Comm* comm,
                       void* stream);
  int (*Send)(const void* from, std::size_t count, int type, int peer, Comm* comm, void* stream);
  int (*Recv)(void* to, std::size_t count, int type, int peer, Comm* comm, void* stream);
  int (*GroupStart)();
  int (*GroupEnd)();
};

/// Calls visit("AllReduce", table.AllReduce) for every function.
template <class Visit>
void for_each_function(Table& table, const Visit& visit) {
  visit("GetVersion", table.GetVersion);
  visit("GetUniqueId", table.GetUniqueId);
  visit("CommInitRank", table.CommInitRank);
  visit("CommDestroy", table.CommDestroy);
  visit("CommAbort", table.CommAbort);
  visit("CommGetAsyncError", table.CommGetAsyncError);
  visit("GetErrorString", table.GetErrorString);
  visit("GetLastError", table.GetLastError);
  visit("AllReduce", table.AllReduce);
  visit("Broadcast", table.Broadcast);
  visit("AllGather", table.AllGather);
  visit("ReduceScatter", table.ReduceScatter);
  visit("Send", table.Send);
  visit("Recv", table.Recv);
  visit("GroupStart", table.GroupStart);
  visit("GroupEnd", table.GroupEnd);
}

}  // namespace caravan::nccl
