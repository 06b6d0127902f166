// SPDX-License-Identifier: Apache-2.0
// The configuration: single values, the option table, and the checks on the whole. Bad input must be refused with a
// message that names the culprit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <unistd.h>

#include "vmm/config.h"
#include "vmm/config_value.h"

#define LEN(a)   (sizeof(a) / sizeof((a)[0]))
#define MAX_ARGS 8

// ---- single values ----

static void sizes(void **state) {
    static const struct {
        const char *text;
        int ret;
        uint64_t value;
    } cases[] = {
        {"0", 0, 0},
        {"4096", 0, 4096},
        {"1k", 0, 1024},
        {"512M", 0, 512ull << 20},
        {"512MiB", 0, 512ull << 20},
        {"2g", 0, 2ull << 30},
        {"3T", 0, 3ull << 40},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"18014398509481984K", -ERANGE, 0},
        {"16777215T", 0, 16777215ull << 40},
        {"16777216T", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"M", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 M", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"1MB", -EINVAL, 0},
        {"1MM", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1P", -EINVAL, 0},
    };
    for (size_t i = 0; i < LEN(cases); i++) {
        uint64_t v = 0;
        int ret = value_parse_size(cases[i].text, &v);
        if (ret != cases[i].ret || v != cases[i].value)
            fail_msg("'%s': got %d, %llu", cases[i].text, ret, (unsigned long long)v);
    }
}

static void sizes_as_text(void **state) {
    char buf[32];
    value_format_size(512ull << 20, buf, sizeof(buf));
    assert_string_equal(buf, "512M");
    value_format_size(1537, buf, sizeof(buf));
    assert_string_equal(buf, "1537");
    value_format_size(0, buf, sizeof(buf));
    assert_string_equal(buf, "0");
    value_format_size(UINT64_MAX, buf, sizeof(buf));
    assert_string_equal(buf, "18446744073709551615");
}

static void names(void **state) {
    static const char *const good[] = {"a", "vm-1", "A.b_c-9", "0"};
    static const char *const bad[] = {"", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "\xc3\xa4", "a:b"};
    char longest[65];
    memset(longest, 'x', 64);
    longest[64] = 0;
    for (size_t i = 0; i < LEN(good); i++)
        assert_true(value_name_ok(good[i]));
    for (size_t i = 0; i < LEN(bad); i++)
        assert_false(value_name_ok(bad[i]));
    assert_false(value_name_ok(longest));
    longest[63] = 0;
    assert_true(value_name_ok(longest));
}

static void addresses(void **state) {
    uint8_t mac[6];
    uint16_t port;
    assert_int_equal(value_parse_mac("52:54:00:ab:CD:ef", mac), 0);
    assert_memory_equal(mac, "\x52\x54\x00\xab\xcd\xef", 6);
    assert_int_equal(value_parse_mac("00:00:00:00:00:00", mac), -EADDRNOTAVAIL);
    assert_int_equal(value_parse_mac("01:00:5e:00:00:01", mac), -EADDRNOTAVAIL);
    assert_int_equal(value_parse_mac("52:54:00:ab:cd", mac), -EINVAL);
    assert_int_equal(value_parse_mac("52:54:00:ab:cd:ef:", mac), -EINVAL);
    assert_int_equal(value_parse_mac("52-54-00-ab-cd-ef", mac), -EINVAL);
    assert_int_equal(value_parse_mac("52:54:00:ab:cd:eg", mac), -EINVAL);
    assert_int_equal(value_parse_port("65535", &port), 0);
    assert_int_equal(port, 65535);
    assert_int_equal(value_parse_port("65536", &port), -ERANGE);
    assert_int_equal(value_parse_port("0", &port), -ERANGE);
}

static void comma_lists(void **state) {
    const char *list = "a,,b,ro,";
    static const char *const want[] = {"a,b", "ro", ""};
    for (size_t i = 0; i < LEN(want); i++) {
        assert_non_null(list);
        char *item = value_next_item(&list);
        assert_string_equal(item, want[i]);
        free(item);
    }
    assert_null(list);
}

// ---- the option table ----

static int parse(struct vm_config *cfg, struct error *err, const char *const *args) {
    int argc = 0;
    while (argc < MAX_ARGS && args[argc])
        argc++;
    config_init(cfg);
    *err = (struct error){0};
    int ret = option_parse(&config_options, argc, (char *const *)args, cfg, err);
    return ret ? ret : config_validate(cfg, err);
}

static void good_configurations(void **state) {
    struct vm_config cfg;
    struct error err;
    const char *plain[MAX_ARGS] = {"--kernel", "k"};
    assert_int_equal(parse(&cfg, &err, plain), 0);
    assert_int_equal(cfg.engine, CONFIG_ENGINE_AUTO);
    assert_int_equal(cfg.cpus, 1);
    assert_int_equal(cfg.memory, 512 << 20);
    assert_null(cfg.cmdline);
    assert_int_equal(strncmp(cfg.name, "vm-", 3), 0);
    assert_int_equal(config_log_level(&cfg), LOG_WARN);
    config_destroy(&cfg);

    const char *many[MAX_ARGS] = {"-k", "k", "--disk=a,,b,ro", "--disk", "c,format=raw", "-v", "--boot=pvh"};
    assert_int_equal(parse(&cfg, &err, many), 0);
    assert_int_equal(cfg.ndisks, 2);
    assert_string_equal(cfg.disks[0].path, "a,b");
    assert_true(cfg.disks[0].read_only);
    assert_string_equal(cfg.disks[1].path, "c");
    assert_false(cfg.disks[1].read_only);
    assert_int_equal(cfg.boot, CONFIG_BOOT_PVH);
    assert_int_equal(config_log_level(&cfg), LOG_INFO);
    config_destroy(&cfg);

    const char *net[MAX_ARGS] = {"--kernel",
                                 "k",
                                 "--net",
                                 "user,hostfwd=tcp:8080:80,hostfwd=udp:8080:53,mac=52:54:00:00:00:01",
                                 "--serial",
                                 "unix:/x:y",
                                 "--cmdline=a=b --c"};
    assert_int_equal(parse(&cfg, &err, net), 0);
    assert_int_equal(cfg.nnets, 1);
    assert_int_equal(cfg.nets[0].nfwds, 2);
    assert_false(cfg.nets[0].fwds[0].udp);
    assert_int_equal(cfg.nets[0].fwds[0].host_port, 8080);
    assert_int_equal(cfg.nets[0].fwds[0].guest_port, 80);
    assert_true(cfg.nets[0].fwds[1].udp);
    assert_true(cfg.nets[0].has_mac);
    assert_int_equal(cfg.serial.kind, CONFIG_CHAR_UNIX);
    assert_string_equal(cfg.serial.path, "/x:y");
    assert_int_equal(cfg.console.kind, CONFIG_CHAR_NONE);
    assert_string_equal(cfg.cmdline, "a=b --c");
    config_destroy(&cfg);

    const char *last[MAX_ARGS] = {"--kernel", "k", "--kernel", "l", "--memory", "1M", "--cpus", "128"};
    assert_int_equal(parse(&cfg, &err, last), 0);
    assert_string_equal(cfg.kernel, "l");
    assert_int_equal(cfg.memory, 1 << 20);
    assert_int_equal(cfg.cpus, 128);
    config_destroy(&cfg);
}

// Each must be refused, with both words in the message.
static void bad_configurations(void **state) {
    static const struct {
        const char *args[MAX_ARGS];
        const char *option, *value;
    } cases[] = {
        {{"--memory", "0"}, "--memory", "'0'"},
        {{"--memory", "-512M"}, "--memory", "'-512M'"},
        {{"--memory", "1048577"}, "--memory", "'1048577'"},
        {{"--memory", "513G"}, "--memory", "'513G'"},
        {{"--memory", "99999999999999999999999"}, "--memory", "at most"},
        {{"--memory", "lots"}, "--memory", "'lots'"},
        {{"--memory="}, "--memory", "''"},
        {{"--memory"}, "--memory", "needs a value"},
        {{"--cpus", "0"}, "--cpus", "'0'"},
        {{"--cpus", "100000"}, "--cpus", "'100000'"},
        {{"--cpus", "abc"}, "--cpus", "'abc'"},
        {{"--cpus", "1.5"}, "--cpus", "'1.5'"},
        {{"--cpus", "4294967297"}, "--cpus", "'4294967297'"},
        {{"--engine", "qemu"}, "--engine", "auto, kvm or xlate"},
        {{"--board", "pc", "--kernel", "k"}, "--board", "not built"},
        {{"--cpu", "486"}, "--cpu", "'486'"},
        {{"--boot", "grub"}, "--boot", "'grub'"},
        {{"--kernel", ""}, "--kernel", "''"},
        {{"--kernel", "--initrd", "x"}, "--kernel", "needs a value"},
        {{"--initrd", "x"}, "--kernel", "needed"},
        {{"--disk", ""}, "--disk", "name of a file"},
        {{"--disk", "x,"}, "--disk", "''"},
        {{"--disk", "x,rw"}, "--disk", "'rw'"},
        {{"--disk", "x,format=qcow2"}, "--disk", "'qcow2'"},
        {{"--net", "tap"}, "--net", "'tap'"},
        {{"--net", ""}, "--net", "''"},
        {{"--net", "user,hostfwd=tcp:1"}, "--net", "tcp:1"},
        {{"--net", "user,hostfwd=tcp::1"}, "--net", "tcp::1"},
        {{"--net", "user,hostfwd=tcp:1:"}, "--net", "tcp:1:"},
        {{"--net", "user,hostfwd=tcp:1:2:3"}, "--net", "tcp:1:2:3"},
        {{"--net", "user,hostfwd=sctp:1:2"}, "--net", "sctp"},
        {{"--net", "user,hostfwd=tcp:70000:2"}, "--net", "70000"},
        {{"--net", "user,hostfwd="}, "--net", "''"},
        {{"--net", "user,mac=x"}, "--net", "'x'"},
        {{"--net", "user,mac=33:33:00:00:00:01"}, "--net", "33:33"},
        {{"--kernel", "k", "--net", "user,hostfwd=tcp:9:1,hostfwd=tcp:9:2"}, "--net", "tcp:9"},
        {{"--kernel", "k", "--net", "user,hostfwd=udp:9:1", "--net", "user,hostfwd=udp:9:1"}, "--net", "udp:9"},
        {{"--kernel", "k", "--net", "user,mac=52:54:00:00:00:01", "--net", "user,mac=52:54:00:00:00:01"},
         "--net",
         "mac"},
        {{"--serial", "pty"}, "--serial", "'pty'"},
        {{"--serial", "file:"}, "--serial", "'file:'"},
        {{"--console", "pty"}, "--console", "'pty'"},
        {{"--kernel", "k", "--serial", "stdio", "--console", "stdio"}, "--console", "only one"},
        {{"--name", "../x"}, "--name", "'../x'"},
        {{"--name", ""}, "--name", "''"},
        {{"--log", "loud"}, "--log", "'loud'"},
        {{"--code-cache", "0"}, "--code-cache", "'0'"},
        {{"--code-cache", "2G"}, "--code-cache", "'2G'"},
        {{"--xlate-opts", ""}, "--xlate-opts", "''"},
        {{"--memroy", "1G"}, "--memroy", "did you mean --memory?"},
        {{"--mem=1G"}, "'--mem'", "did you mean --memory?"},
        {{"--zzzzzzzzzz"}, "--zzzzzzzzzz", "--help"},
        {{"-z"}, "'-z'", "--help"},
        {{"-vv"}, "'-vv'", "--help"},
        {{"--no-reboot=yes"}, "--no-reboot", "'yes'"},
        {{"kernel"}, "'kernel'", "unexpected"},
        {{"--", "--kernel"}, "'--kernel'", "unexpected"},
    };
    for (size_t i = 0; i < LEN(cases); i++) {
        struct vm_config cfg;
        struct error err;
        int ret = parse(&cfg, &err, cases[i].args);
        config_destroy(&cfg);
        if (ret >= 0 || !strstr(err.text, cases[i].option) || !strstr(err.text, cases[i].value))
            fail_msg("%s %s: got %d, '%s'", cases[i].args[0], cases[i].args[1] ? cases[i].args[1] : "", ret, err.text);
    }
}

static void too_many(void **state) {
    struct vm_config cfg;
    struct error err = {0};
    char *args[] = {"--disk", "x"};
    config_init(&cfg);
    for (int i = 0; i < CONFIG_MAX_DISKS; i++)
        assert_int_equal(option_parse(&config_options, 2, args, &cfg, &err), 0);
    assert_int_equal(option_parse(&config_options, 2, args, &cfg, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at most 8"));
    config_destroy(&cfg);
}

static void long_values(void **state) {
    size_t n = 100000;
    char *value = malloc(n + 1);
    struct vm_config cfg;
    struct error err;
    memset(value, 'x', n);
    value[n] = 0;
    static const char *const options[] = {"--cmdline", "--memory", "--cpus",   "--disk",      "--net",
                                          "--serial",  "--name",   "--engine", "--xlate-opts"};
    for (size_t i = 0; i < LEN(options); i++) {
        const char *args[MAX_ARGS] = {options[i], value};
        int ret = parse(&cfg, &err, args);
        config_destroy(&cfg);
        assert_int_equal(ret, -EINVAL);
        assert_true(strlen(err.text) < sizeof(err.text));
    }
    const char *unknown[MAX_ARGS] = {value};
    value[0] = value[1] = '-';
    assert_int_equal(parse(&cfg, &err, unknown), -EINVAL);
    config_destroy(&cfg);
    free(value);
}

static void help_wins(void **state) {
    struct vm_config cfg;
    struct error err;
    const char *args[MAX_ARGS] = {"--cpus", "2", "--help", "--nonsense"};
    assert_int_equal(parse(&cfg, &err, args), OPTION_HELP);
    config_destroy(&cfg);
}

static void files(void **state) {
    char path[] = "/tmp/cicada-test-XXXXXX";
    int fd = mkstemp(path);
    struct vm_config cfg;
    struct error err = {0};
    const char *args[MAX_ARGS] = {"--kernel", path};
    assert_int_equal(parse(&cfg, &err, args), 0);
    assert_int_equal(config_check_files(&cfg, &err), -EINVAL);
    assert_non_null(strstr(err.text, "empty"));
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(config_check_files(&cfg, &err), 0);
    config_destroy(&cfg);
    static const struct {
        const char *option, *path;
        int ret;
    } cases[] = {{"--kernel", "/nonexistent", -ENOENT}, {"--kernel", "/", -EISDIR},
                 {"--kernel", "/dev/null", -EINVAL},    {"--initrd", "/nonexistent", -ENOENT},
                 {"--disk", "/nonexistent", -ENOENT},   {"--disk", "/tmp,ro", -EISDIR}};
    for (size_t i = 0; i < LEN(cases); i++) {
        const char *bad[MAX_ARGS] = {"--kernel", path, cases[i].option, cases[i].path};
        assert_int_equal(parse(&cfg, &err, bad), 0);
        assert_int_equal(config_check_files(&cfg, &err), cases[i].ret);
        config_destroy(&cfg);
    }
    close(fd);
    unlink(path);
}

// What the generators of help and completion rely on.
static void table_is_sane(void **state) {
    const struct option_table *t = &config_options;
    for (unsigned i = 0; i < t->count; i++) {
        assert_non_null(t->defs[i].set);
        assert_non_null(t->defs[i].help);
        assert_null(strpbrk(t->defs[i].help, "'\\"));
        assert_ptr_equal(option_find(t, t->defs[i].name, strlen(t->defs[i].name)), &t->defs[i]);
        assert_true(!t->defs[i].choices || t->defs[i].metavar);
        for (unsigned j = 0; j < i; j++)
            assert_true(!t->defs[i].short_name || t->defs[i].short_name != t->defs[j].short_name);
    }
}

static void nearest(void **state) {
    static const char *const words[] = {"run", "ps", "stop", "completion", NULL};
    assert_string_equal(option_nearest("rnu", words), "run");
    assert_string_equal(option_nearest("stpo", words), "stop");
    assert_string_equal(option_nearest("comp", words), "completion");
    assert_string_equal(option_nearest("compltion", words), "completion");
    assert_null(option_nearest("", words));
    assert_null(option_nearest("zebra", words));
}

// ---- values that may be left out ----

static int note(void *target, const char *value, int index, struct error *err) {
    *(const char **)target = value ? value : "none";
    return 0;
}

static int note_word(void *target, const char *value, struct error *err) {
    assert_string_equal(value, "word");
    return 0;
}

static void optional_values(void **state) {
    static const struct option_def defs[] = {
        {"maybe", .metavar = "now", .optional = true, .choices = "now|then", .set = note}};
    static const struct option_table table = {
        .defs = defs, .count = 1, .positional = "WORD", .set_positional = note_word};
    const char *seen = NULL;
    struct error err = {0};
    assert_int_equal(option_parse(&table, 2, (char *const[]){"--maybe", "word"}, &seen, &err), 0);
    assert_string_equal(seen, "none"); // "word" is an argument of its own
    assert_int_equal(option_parse(&table, 1, (char *const[]){"--maybe=then"}, &seen, &err), 0);
    assert_string_equal(seen, "then");
    assert_int_equal(option_parse(&table, 1, (char *const[]){"--maybe"}, &seen, &err), 0);
    assert_string_equal(seen, "none");
    assert_int_equal(option_parse(&table, 1, (char *const[]){"--maybe=soon"}, &seen, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'soon' is not one of now or then"));
    assert_int_equal(option_parse(&table, 1, (char *const[]){"--maybe="}, &seen, &err), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(sizes_as_text),
        cmocka_unit_test(names),
        cmocka_unit_test(addresses),
        cmocka_unit_test(comma_lists),
        cmocka_unit_test(good_configurations),
        cmocka_unit_test(bad_configurations),
        cmocka_unit_test(too_many),
        cmocka_unit_test(long_values),
        cmocka_unit_test(help_wins),
        cmocka_unit_test(files),
        cmocka_unit_test(table_is_sane),
        cmocka_unit_test(nearest),
        cmocka_unit_test(optional_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
