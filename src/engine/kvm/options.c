// SPDX-License-Identifier: Apache-2.0
// The switches of --kvm-opts.
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "engine/kvm/kvm.h"

static const struct {
    const char *word;
    size_t field; // of struct kvm_options, one byte
    uint8_t value;
} words[] = {
    {"irqchip=kernel", offsetof(struct kvm_options, chips), KVM_CHIPS_KERNEL},
    {"irqchip=split", offsetof(struct kvm_options, chips), KVM_CHIPS_SPLIT},
    {"irqchip=user", offsetof(struct kvm_options, chips), KVM_CHIPS_USER},
    {"ioeventfd=auto", offsetof(struct kvm_options, ioeventfd), KVM_IOEVENTFD_AUTO},
    {"ioeventfd=on", offsetof(struct kvm_options, ioeventfd), KVM_IOEVENTFD_ON},
    {"ioeventfd=off", offsetof(struct kvm_options, ioeventfd), KVM_IOEVENTFD_OFF},
    {"dirty=auto", offsetof(struct kvm_options, dirty), KVM_DIRTY_AUTO},
    {"dirty=bitmap", offsetof(struct kvm_options, dirty), KVM_DIRTY_BITMAP},
    {"dirty=ring", offsetof(struct kvm_options, dirty), KVM_DIRTY_RING},
};
#define ALL_WORDS "irqchip=kernel|split|user, ioeventfd=auto|on|off, dirty=auto|bitmap|ring"

static int parse_word(struct kvm_options *o, const char *word, struct error *err) {
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(word, words[i].word))
            continue;
        ((uint8_t *)o)[words[i].field] = words[i].value;
        return 0;
    }
    return error_set(err, -EINVAL, "--kvm-opts: unknown option '%.40s' (" ALL_WORDS ")", word);
}

int kvm_options_parse(struct kvm_options *o, const struct engine_options *opt, struct error *err) {
    char text[256], *save = NULL;

    *o = (struct kvm_options){0};
    if (!opt || !opt->features)
        return 0;
    if (strlen(opt->features) >= sizeof(text))
        return error_set(err, -EINVAL, "--kvm-opts: too long");
    strcpy(text, opt->features);
    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        int r = parse_word(o, w, err);
        if (r)
            return r;
    }
    return 0;
}
