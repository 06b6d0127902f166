// SPDX-License-Identifier: Apache-2.0
// The error object: what is appended, what is kept when the text does not fit.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "util/error.h"

static void test_set_appends_errno(void **state) {
    struct error err;

    assert_int_equal(error_set(&err, -EACCES, "open disk '%s'", "x.img"), -EACCES);
    assert_int_equal(err.code, -EACCES);
    assert_string_equal(err.text, "open disk 'x.img': Permission denied");
}

static void test_set_einval_stands_alone(void **state) {
    struct error err;

    assert_int_equal(error_set(&err, -EINVAL, "--mem: not a size"), -EINVAL);
    assert_string_equal(err.text, "--mem: not a size");
}

static void test_prefix(void **state) {
    struct error err;

    error_set(&err, -ENOENT, "open 'k'");
    assert_int_equal(error_prefix(&err, "boot %d", 7), -ENOENT);
    assert_string_equal(err.text, "boot 7: open 'k': No such file or directory");
}

static void test_long_text_is_cut(void **state) {
    struct error err;
    char big[2000];

    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    error_set(&err, -EIO, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    error_prefix(&err, "ctx");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "ctx: aaa", 8);
    error_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_int_equal(err.code, -EIO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_appends_errno),
        cmocka_unit_test(test_set_einval_stands_alone),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_long_text_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
