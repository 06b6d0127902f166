// SPDX-License-Identifier: Apache-2.0
// The error object. A text that does not fit is cut, never overrun: the message that a person
// reads first (the outermost context) is kept.
#include "util/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Appends at offset `at`; returns the new length, at most size - 1.
__attribute__((format(printf, 4, 0))) static size_t text_vappend(char *text, size_t size, size_t at, const char *fmt,
                                                                 va_list ap) {
    int n = vsnprintf(text + at, size - at, fmt, ap);

    if (n < 0)
        return at;
    return (size_t)n < size - at ? at + (size_t)n : size - 1;
}

__attribute__((format(printf, 4, 5))) static void text_append(char *text, size_t size, size_t at, const char *fmt,
                                                              ...) {
    va_list ap;

    va_start(ap, fmt);
    text_vappend(text, size, at, fmt, ap);
    va_end(ap);
}

int error_set(struct error *err, int code, const char *fmt, ...) {
    char buf[128];
    va_list ap;

    err->code = code;
    err->text[0] = 0;
    va_start(ap, fmt);
    size_t len = text_vappend(err->text, sizeof(err->text), 0, fmt, ap);
    va_end(ap);
    // "Invalid argument" after a text that already says what is invalid only makes it longer.
    if (code < 0 && code != -EINVAL)
        text_append(err->text, sizeof(err->text), len, ": %s", strerror_r(-code, buf, sizeof(buf)));
    return code;
}

int error_prefix(struct error *err, const char *fmt, ...) {
    struct error old = *err;
    va_list ap;

    err->text[0] = 0;
    va_start(ap, fmt);
    size_t len = text_vappend(err->text, sizeof(err->text), 0, fmt, ap);
    va_end(ap);
    text_append(err->text, sizeof(err->text), len, ": %s", old.text);
    return err->code;
}
