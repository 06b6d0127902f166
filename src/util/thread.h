// SPDX-License-Identifier: Apache-2.0
// Threads without signals: those are for the main thread, and for vCPUs that open what their engine needs.
#ifndef CICADA_UTIL_THREAD_H
#define CICADA_UTIL_THREAD_H

#include <pthread.h>

// pthread_create of a joinable thread that begins with all signals blocked. 0 or a negative errno. Any thread.
int thread_start(pthread_t *thread, void *(*body)(void *), void *arg);

#endif
