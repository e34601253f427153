/* tpc.h - the public header of libtpc: the only one that is installed.
 *
 * Invariant: includes nothing of tpc's own, compiles as C11 and as C++, and what it does not mark TPC_API is not exported.
 */
#ifndef TPC_H
#define TPC_H

#define TPC_VERSION_MAJOR 0
#define TPC_VERSION_MINOR 1
#define TPC_VERSION_PATCH 0
#define TPC_VERSION "0.1.0"

#if defined(__GNUC__)
#define TPC_API __attribute__((visibility("default")))
#else
#define TPC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif

#endif
