// SPDX-License-Identifier: Apache-2.0
// Snapshots on the disk without a guest: memory written by the writer thread comes back mapped, read and compressed;
// differences go over their parents; nothing has its name before it is complete.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/ram_writer.h"
#include "state/snapshot.h"
#include "temp.h"
#include "util/crc32c.h"

#define PAGES  300u
#define RAM    (PAGES * PAGE_SIZE)
#define SECOND 0x10000000u // a second block, of one page

static char folder[TEMP_PATH_MAX];
static struct event_loop *loop;
static int last_result;

static struct mem *mem_new(void) {
    struct mem *mem;
    struct error err = {0};
    assert_int_equal(mem_create(&mem, &err), 0);
    assert_int_equal(mem_add_ram(mem, GPA(0), RAM, "ram", &err), 0);
    assert_int_equal(mem_add_ram(mem, GPA(SECOND), PAGE_SIZE, "second", &err), 0);
    return mem;
}

static void put(struct mem *mem, uint64_t page, uint32_t value) {
    uint32_t words[PAGE_SIZE / 4];
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        words[i] = value ? value + i : 0;
    assert_int_equal(mem_write(mem, GPA(page * PAGE_SIZE), words, sizeof(words)), 0);
}

static uint32_t get(struct mem *mem, uint64_t page) {
    uint32_t words[PAGE_SIZE / 4];
    assert_int_equal(mem_read(mem, GPA(page * PAGE_SIZE), words, sizeof(words)), 0);
    for (unsigned i = 1; i < PAGE_SIZE / 4; i++)
        if (words[i] != (words[0] ? words[0] + i : 0))
            fail_msg("page %u is torn", (unsigned)page);
    return words[0];
}

static void done(void *ctx, int result) {
    last_result = result;
    event_loop_quit(loop, 1);
}

// Runs a job of the writer to its end on a loop of its own: event_loop_quit is for good.
static void write_pages(struct mem *mem, struct ram_map *map, unsigned long **todo, int fd, bool copy) {
    struct ram_writer *w;
    struct error err = {0};
    assert_int_equal(event_loop_create(&loop, &err), 0);
    assert_int_equal(ram_writer_create(loop, &w, &err), 0);
    assert_int_equal(ram_writer_start(w, &err), 0);
    if (copy) {
        assert_int_equal(ram_writer_write_copy(w, map, todo, fd, done, NULL), 0);
        put(mem, 5, 0xbad); // after the copy: not in the snapshot
    } else {
        ram_writer_write(w, map, todo, fd, done, NULL);
    }
    event_loop_run(loop);
    assert_int_equal(last_result, 0);
    ram_writer_destroy(w);
    event_loop_destroy(loop);
}

// Takes a snapshot of mem as `name`: all of it, or what was written since the checkpoint of the last one.
static void take(struct mem *mem, const char *name, const char *parent_id, bool zstd, bool copy, char id[33]) {
    struct snapshot_draft d;
    struct ram_map map;
    struct error err = {0};
    struct state_writer w = {0};
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    assert_int_equal(snapshot_draft_create(path, &d, &err), 0);
    assert_int_equal(ram_map_create(mem, parent_id != NULL, &map), 0);
    assert_int_equal(map.bytes, RAM + PAGE_SIZE);
    assert_int_equal(ftruncate(d.memory_fd, (off_t)map.bytes), 0);
    unsigned long *todo[2];
    for (unsigned i = 0; i < map.count; i++) {
        unsigned long *fetched = calloc(mem_bitmap_words(map.blocks[i].slot), sizeof(*fetched));
        todo[i] = calloc(mem_bitmap_words(map.blocks[i].slot), sizeof(*todo[i]));
        mem_dirty_fetch(mem, map.blocks[i].slot, fetched);
        if (parent_id)
            mem_since_checkpoint(mem, map.blocks[i].slot, todo[i]);
        else
            assert_int_equal(mem_present(mem, map.blocks[i].slot, todo[i]), 0);
        mem_checkpoint(mem, map.blocks[i].slot);
        free(fetched);
    }
    write_pages(mem, &map, todo, d.memory_fd, copy);
    free(todo[0]);
    free(todo[1]);
    sections_begin(&w);
    ram_map_put(&map, &w);
    ram_map_free(&map);
    assert_int_equal(sections_end(&w, &err), 0);
    assert_int_equal(pwrite(d.state_fd, w.buf, w.len, 0), (ssize_t)w.len);
    if (zstd)
        assert_int_equal(snapshot_draft_compress(&d, 1, &err), 0);
    json_t *manifest = json_pack("{s:s, s:{s:I, s:I}}", "compression", zstd ? "zstd" : "none", "machine", "state_bytes",
                                 (json_int_t)w.len, "state_crc32c", (json_int_t)crc32c(0, w.buf, w.len));
    if (parent_id)
        json_object_set_new(manifest, "parent", json_pack("{s:s, s:s}", "id", parent_id, "path", "../full"));
    assert_int_equal(stat(path, &st), -1); // not there before it is complete
    assert_int_equal(snapshot_draft_publish(&d, manifest, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    strcpy(id, d.id);
    json_decref(manifest);
    state_writer_free(&w);
}

static struct mem *load(const char *name, enum ram_load_how how) {
    struct mem *mem = mem_new();
    struct snapshot *s;
    struct error err = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (snapshot_open(path, &s, &err) || snapshot_check_memory(s, mem, &err) ||
        snapshot_load_memory(s, mem, how, &err) || snapshot_verify(s, &err))
        fail_msg("%s", err.text);
    snapshot_close(s);
    return mem;
}

static void test_full_and_difference(void **state) {
    static const enum ram_load_how hows[] = {RAM_MAP, RAM_READ};
    char id[33], ignored[33];
    struct mem *mem = mem_new();
    put(mem, 0, 100);
    put(mem, 5, 500);
    put(mem, 299, 29900);
    put(mem, SECOND / PAGE_SIZE, 77);
    take(mem, "full", NULL, false, true, id);
    assert_int_equal(get(mem, 5), 0xbad);
    put(mem, 5, 0); // becomes zero: the difference must say so
    put(mem, 6, 600);
    take(mem, "diff", id, false, false, ignored);
    mem_destroy(mem);
    for (unsigned i = 0; i < 2; i++) {
        mem = load("full", hows[i]);
        assert_int_equal(get(mem, 0), 100);
        assert_int_equal(get(mem, 5), 500);
        assert_int_equal(get(mem, 6), 0);
        assert_int_equal(get(mem, 299), 29900);
        assert_int_equal(get(mem, SECOND / PAGE_SIZE), 77);
        put(mem, 0, 1); // does not reach the file
        mem_destroy(mem);
        mem = load("diff", hows[i]);
        assert_int_equal(get(mem, 0), 100);
        assert_int_equal(get(mem, 5), 0);
        assert_int_equal(get(mem, 6), 600);
        mem_destroy(mem);
    }
}

// A snapshot of a machine that stands on a snapshot: base and own pages.
static void test_snapshot_of_a_restored_machine(void **state) {
    char id[33];
    struct mem *mem = load("full", RAM_MAP);
    put(mem, 7, 700);
    put(mem, 0, 0);
    take(mem, "again", NULL, true, false, id);
    mem_destroy(mem);
    mem = load("again", RAM_MAP);
    assert_int_equal(get(mem, 0), 0);
    assert_int_equal(get(mem, 5), 500);
    assert_int_equal(get(mem, 7), 700);
    assert_int_equal(get(mem, 299), 29900);
    mem_destroy(mem);
}

static void open_fails(const char *name, const char *why) {
    struct snapshot *s = NULL;
    struct error err = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int ret = snapshot_open(path, &s, &err);
    if (ret == 0) {
        ret = snapshot_verify(s, &err);
        snapshot_close(s);
    }
    assert_true(ret < 0);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
}

static void spoil(const char *name, const char *file, off_t at) {
    char path[PATH_MAX];
    uint8_t byte;
    snprintf(path, sizeof(path), "%s/%s/%s", folder, name, file);
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_damage(void **state) {
    spoil("again", "memory.zst", 40);
    open_fails("again", "memory.zst");
    spoil("diff", "memory", 6 * (off_t)PAGE_SIZE + 9);
    open_fails("diff", "checksum of the page at 0x6000");
    spoil("diff", "state", 60);
    open_fails("diff", "corrupt");
    spoil("full", "manifest.json", 0);
    open_fails("full", "manifest.json");
    open_fails("nowhere", "No such file");
}

static void test_a_draft_that_is_given_up_leaves_nothing(void **state) {
    struct snapshot_draft d;
    struct error err = {0};
    struct stat st;
    char path[PATH_MAX], temporary[PATH_MAX];
    snprintf(path, sizeof(path), "%s/draft", folder);
    assert_int_equal(snapshot_draft_create(path, &d, &err), 0);
    assert_int_equal(snapshot_draft_add_disk(&d, 3, &err), 0);
    strcpy(temporary, d.temporary);
    assert_int_equal(stat(temporary, &st), 0);
    snapshot_draft_discard(&d);
    assert_int_equal(stat(temporary, &st), -1);
    assert_int_equal(stat(path, &st), -1);
    snprintf(path, sizeof(path), "%s/diff", folder);
    assert_int_equal(snapshot_draft_create(path, &d, &err), -EEXIST);
    assert_int_equal(snapshot_draft_create("/", &d, &err), -EINVAL);
    assert_int_equal(snapshot_draft_create("", &d, &err), -EINVAL);
}

static int setup(void **state) {
    return mkdtemp(temp_template(folder, "snapshots")) ? 0 : -1;
}

static int teardown(void **state) {
    char command[PATH_MAX];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_difference),
        cmocka_unit_test(test_snapshot_of_a_restored_machine),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_a_draft_that_is_given_up_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
