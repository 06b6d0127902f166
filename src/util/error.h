// SPDX-License-Identifier: Apache-2.0
// The error object: what a person will read, filled in where the failing call was made.
// Functions that can fail for a reason a user may correct take `struct error *err` last (never NULL),
// return 0 or a negative errno, and fill `err` exactly when they return non-zero.
#ifndef CICADA_UTIL_ERROR_H
#define CICADA_UTIL_ERROR_H

struct error {
    int code;       // negative errno, 0 when unset
    char text[480]; // "open disk 'x.img': Permission denied"
};

// Sets the text from fmt, followed by ": " and strerror(-code) when `code` is a negative errno
// that adds information (not -EINVAL, whose text says everything). Returns code.
int error_set(struct error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// Puts "context: " in front of the text already there. Returns err->code.
int error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
