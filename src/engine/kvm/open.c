// SPDX-License-Identifier: Apache-2.0
// /dev/kvm: opened, checked, and where it cannot be had, the way out for a person.
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kvm/kvm.h"

#define DEVICE "/dev/kvm"

int kvm_ioctl(int fd, unsigned long request, void *arg) {
    int r;

    do
        r = ioctl(fd, request, arg);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

int kvm_has(int fd, long capability) {
    int r = ioctl(fd, KVM_CHECK_EXTENSION, capability);

    return r < 0 ? 0 : r;
}

// The codes say "the caller can correct it": none of them may be one of the host's failures (EPERM, ENOSYS).
static int cannot_open(int code, struct error *err) {
    switch (code) {
    case EACCES:
    case EPERM:
        return error_set(err, -EACCES,
                         "open '" DEVICE "': this user may not (add it to the device's group, usually kvm, and "
                         "log in again; or use --engine xlate)");
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return error_set(err, -ENODEV,
                         "open '" DEVICE "': no hardware virtualization here (load the module kvm_intel or kvm_amd, "
                         "enable it in the firmware, pass the device into the container, or use --engine xlate)");
    default: return error_set(err, -code, "open '" DEVICE "'");
    }
}

int kvm_check(int fd, struct error *err) {
    static const struct {
        long capability;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "user memory"},  {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
        {KVM_CAP_EXT_CPUID, "CPUID tables"},   {KVM_CAP_MP_STATE, "MP state"},
        {KVM_CAP_VCPU_EVENTS, "vCPU events"},  {KVM_CAP_DEBUGREGS, "debug registers"},
        {KVM_CAP_SET_TSS_ADDR, "TSS address"},
    };
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);

    if (version != KVM_API_VERSION)
        return error_set(err, -EINVAL, "'" DEVICE "' speaks version %d of its interface, needed is %d", version,
                         KVM_API_VERSION);
    for (unsigned i = 0; i < ARRAY_LEN(needed); i++)
        if (!kvm_has(fd, needed[i].capability))
            return error_set(err, -EINVAL, "'" DEVICE "' lacks %s: a newer host kernel is needed, or --engine xlate",
                             needed[i].name);
    return 0;
}

int kvm_open(struct error *err) {
    int fd = open(DEVICE, O_RDWR | O_CLOEXEC), r;

    if (fd < 0)
        return cannot_open(errno, err);
    r = kvm_check(fd, err);
    if (r) {
        close(fd);
        return r;
    }
    return fd;
}
