// SPDX-License-Identifier: Apache-2.0
// The log: levels, the ring, hostile text.
#define LOG_UNIT "test"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/log.h"

// The ring as one string; free it.
static char *ring_text(void) {
    int fd = memfd_create("ring", 0);

    assert_true(fd >= 0);
    log_dump_ring(fd);
    off_t len = lseek(fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)len + 1);
    assert_int_equal(pread(fd, text, (size_t)len, 0), len);
    close(fd);
    return text;
}

static void test_level_parse(void **state) {
    enum log_level level = LOG_ERROR;

    assert_int_equal(log_level_parse("trace", &level), 0);
    assert_int_equal(level, LOG_TRACE);
    assert_int_equal(log_level_parse("Trace", &level), -EINVAL);
    assert_int_equal(log_level_parse("", &level), -EINVAL);
    assert_int_equal(level, LOG_TRACE);
}

static void test_ring_gets_hidden_levels(void **state) {
    log_set_level(LOG_ERROR);
    log_debug("hidden %d", 42);
    log_trace("not even formatted");
    char *text = ring_text();
    assert_non_null(strstr(text, "test: debug: hidden 42\n"));
    assert_null(strstr(text, "not even formatted"));
    free(text);
}

static void test_control_characters(void **state) {
    log_debug("name '%s'\n", "a\x1b[2J\nb\x7f");
    char *text = ring_text();
    assert_non_null(strstr(text, "name 'a?[2J?b?'\n"));
    free(text);
}

static void test_ring_wraps_and_cuts(void **state) {
    char big[4000];

    memset(big, 'z', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    log_debug("before the ring turns");
    for (int i = 0; i < 300; i++)
        log_debug("line %d %s", i, i == 299 ? big : "");
    char *text = ring_text();
    assert_null(strstr(text, "before the ring turns"));
    assert_null(strstr(text, "line 43 "));
    assert_non_null(strstr(text, "line 44 "));
    assert_non_null(strstr(text, "line 299 zzz"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    int lines = 0;
    for (char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 256);
    free(text);
}

static void test_errno_is_kept(void **state) {
    errno = EDOM;
    log_debug("x");
    assert_int_equal(errno, EDOM);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_level_parse),        cmocka_unit_test(test_ring_gets_hidden_levels),
        cmocka_unit_test(test_control_characters), cmocka_unit_test(test_ring_wraps_and_cuts),
        cmocka_unit_test(test_errno_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
