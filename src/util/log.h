// SPDX-License-Identifier: Apache-2.0
// Log to standard error by level; every line of every level also goes to a ring of the last lines,
// which log_dump_ring() writes out when the VMM itself has failed. Thread-safe, no allocation.
#ifndef CICADA_UTIL_LOG_H
#define CICADA_UTIL_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

// Default LOG_WARN. log_level_parse accepts "error".."trace", returns -EINVAL otherwise.
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
int log_level_parse(const char *name, enum log_level *level);

void log_write(enum log_level level, const char *unit, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// Writes the ring to fd; async-signal-safe.
void log_dump_ring(int fd);

// A file may define LOG_UNIT before including this header.
#ifndef LOG_UNIT
#define LOG_UNIT "cicada"
#endif
#define log_error(...) log_write(LOG_ERROR, LOG_UNIT, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, LOG_UNIT, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, LOG_UNIT, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, LOG_UNIT, __VA_ARGS__)
// For hot paths: costs one load and a branch unless --log trace is on, and then alone reaches the ring.
#define log_trace(...)                                                                                                 \
    do {                                                                                                               \
        if (log_get_level() >= LOG_TRACE)                                                                              \
            log_write(LOG_TRACE, LOG_UNIT, __VA_ARGS__);                                                               \
    } while (0)

#endif
