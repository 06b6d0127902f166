// SPDX-License-Identifier: Apache-2.0
// Sections of a snapshot: what is written is read; whatever else is refused, with a reason and before anything loads.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "state/sections.h"
#include "util/crc32c.h"

struct part {
    uint32_t value;
    unsigned loads;
};

static void part_save(void *ctx, struct state_writer *w) {
    state_put_u32(w, ((struct part *)ctx)->value);
}

static int part_load(void *ctx, struct state_reader *r, struct error *err) {
    struct part *p = ctx;
    p->loads++;
    p->value = state_get_u32(r);
    return r->error ? error_set(err, -EINVAL, "truncated part") : 0;
}

static void broken_save(void *ctx, struct state_writer *w) {
    w->error = -EIO;
}

static const struct component_ops part_ops = {.name = "part", .version = 2, .save = part_save, .load = part_load};
static const struct component_ops newer_ops = {.name = "part", .version = 3, .save = part_save, .load = part_load};
static const struct component_ops broken_ops = {.name = "broken", .version = 1, .save = broken_save};
static const struct component_ops mute_ops = {.name = "mute", .version = 1};

static struct part parts[2];
static struct component_list list;

static void make_list(const struct component_ops *ops, unsigned count) {
    component_destroy_all(&list);
    component_list_init(&list);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(component_add(&list, ops, &parts[i], i), 0);
}

static struct state_writer write_run(void) {
    struct state_writer w = {0};
    struct error err = {0};
    sections_begin(&w);
    assert_int_equal(sections_save(&w, &list, &err), 0);
    sections_put(&w, ".mine", 7, 1, "hello", 5);
    assert_int_equal(sections_end(&w, &err), 0);
    return w;
}

static int setup(void **state) {
    component_list_init(&list);
    return 0;
}

static int teardown(void **state) {
    component_destroy_all(&list);
    return 0;
}

static void test_crc32c_is_castagnoli(void **state) {
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u); // RFC 3720 and every catalogue of CRCs
    uint8_t zeroes[32] = {0};
    assert_int_equal(crc32c(0, zeroes, 32), 0x8a9136aau); // RFC 3720, B.4
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

static void test_what_is_written_is_read(void **state) {
    struct sections s;
    struct error err = {0};
    make_list(&part_ops, 2);
    parts[0] = (struct part){.value = 11};
    parts[1] = (struct part){.value = 22};
    struct state_writer w = write_run();
    memset(parts, 0, sizeof(parts));
    assert_int_equal(sections_parse(w.buf, w.len, &s, &err), 0);
    assert_int_equal(s.count, 3);
    const struct section *mine = sections_find(&s, ".mine", 7);
    assert_non_null(mine);
    assert_int_equal(mine->len, 5);
    assert_memory_equal(mine->data, "hello", 5);
    assert_null(sections_find(&s, ".mine", 6));
    sections_free(&s);
    assert_int_equal(sections_restore(w.buf, w.len, &list, &err), 0);
    assert_int_equal(parts[0].value, 11);
    assert_int_equal(parts[1].value, 22);
    state_writer_free(&w);
}

// Every byte matters: the run is refused, and no component has been asked.
static void test_damage_is_refused(void **state) {
    struct error err = {0};
    make_list(&part_ops, 2);
    struct state_writer w = write_run();
    memset(parts, 0, sizeof(parts));
    for (size_t at = 0; at < w.len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            w.buf[at] ^= (uint8_t)(1u << bit);
            err.text[0] = 0;
            if (sections_restore(w.buf, w.len, &list, &err) != -EINVAL || !err.text[0])
                fail_msg("byte %zu bit %u is accepted", at, bit);
            w.buf[at] ^= (uint8_t)(1u << bit);
        }
    }
    for (size_t len = 0; len < w.len; len++) {
        uint8_t *copy = malloc(len ? len : 1);
        memcpy(copy, w.buf, len);
        assert_int_equal(sections_restore(copy, len, &list, &err), -EINVAL);
        free(copy);
    }
    assert_int_equal(parts[0].loads + parts[1].loads, 0);
    state_writer_free(&w);
}

static void refused(const struct state_writer *w, const char *why) {
    struct error err = {0};
    memset(parts, 0, sizeof(parts));
    assert_int_equal(sections_restore(w->buf, w->len, &list, &err), -EINVAL);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
    assert_int_equal(parts[0].loads, 0);
}

static void test_another_machine_is_refused(void **state) {
    make_list(&part_ops, 2);
    struct state_writer w = write_run();
    make_list(&part_ops, 1);
    refused(&w, "has a part 1, this one has none");
    state_writer_free(&w);
    make_list(&part_ops, 1);
    w = write_run();
    make_list(&part_ops, 2);
    refused(&w, "has no part 1");
    state_writer_free(&w);
    make_list(&newer_ops, 1);
    w = write_run();
    make_list(&part_ops, 1);
    refused(&w, "version 3");
    state_writer_free(&w);
}

static void test_an_older_version_reaches_the_component(void **state) {
    struct error err = {0};
    make_list(&part_ops, 1);
    parts[0].value = 5;
    struct state_writer w = write_run();
    make_list(&newer_ops, 1);
    assert_int_equal(sections_restore(w.buf, w.len, &list, &err), 0);
    assert_int_equal(parts[0].value, 5);
    state_writer_free(&w);
}

static void test_bytes_left_unread_are_refused(void **state) {
    struct state_writer w = {0};
    struct error err = {0};
    make_list(&part_ops, 1);
    sections_begin(&w);
    sections_put(&w, "part", 0, 2, "12345", 5);
    assert_int_equal(sections_end(&w, &err), 0);
    assert_int_equal(sections_restore(w.buf, w.len, &list, &err), -EINVAL);
    assert_non_null(strstr(err.text, "4 of 5"));
    state_writer_free(&w);
}

static void test_two_of_a_name_are_refused(void **state) {
    struct state_writer w = {0};
    struct sections s;
    struct error err = {0};
    sections_begin(&w);
    sections_put(&w, "part", 0, 2, "1234", 4);
    sections_put(&w, "part", 0, 2, "1234", 4);
    assert_int_equal(sections_end(&w, &err), 0);
    assert_int_equal(sections_parse(w.buf, w.len, &s, &err), -EINVAL);
    assert_non_null(strstr(err.text, "two sections part 0"));
    state_writer_free(&w);
}

static void test_a_component_that_cannot_save(void **state) {
    struct state_writer w = {0};
    struct error err = {0};
    make_list(&broken_ops, 1);
    sections_begin(&w);
    assert_int_equal(sections_save(&w, &list, &err), -EIO);
    assert_non_null(strstr(err.text, "broken 0"));
    state_writer_free(&w);
    make_list(&mute_ops, 1); // has no state: no section, and none is missed
    w = write_run();
    assert_int_equal(sections_restore(w.buf, w.len, &list, &err), 0);
    state_writer_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_is_castagnoli),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_another_machine_is_refused),
        cmocka_unit_test(test_an_older_version_reaches_the_component),
        cmocka_unit_test(test_bytes_left_unread_are_refused),
        cmocka_unit_test(test_two_of_a_name_are_refused),
        cmocka_unit_test(test_a_component_that_cannot_save),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
