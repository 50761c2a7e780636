/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_faults.c - see page_faults.h. Tested by: lazy_memory_test.c
 */
#include "vmm/memory/page_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/limits.h"

/* Newer than the headers of some systems that Ferry is built on. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xaa, 0x00)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#define UFFDIO_POISON       _IOWR(UFFDIO, 0x08, struct uffdio_poison)
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#endif

struct page_faults {
    int fd; /* owned */
    uint64_t base;
    uint64_t bytes;
    bool can_poison;
};

/* The system call needs a capability or a system setting; the device only its permission bits. */
static struct err *open_fd(int *out_fd)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && (errno == EPERM || errno == ENOSYS)) {
        CLEANUP(cleanup_fd) int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        fd = device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            return err_new(ERR_DENIED,
                           "this process may not load memory on demand; give it access to "
                           "/dev/userfaultfd");
    }
    if (fd < 0)
        return err_errno(errno, "open a userfaultfd");
    *out_fd = fd;
    return NULL;
}

static struct err *negotiate(struct page_faults *faults)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_POISON};

    faults->can_poison = ioctl(faults->fd, UFFDIO_API, &api) == 0;
    if (faults->can_poison)
        return NULL;
    api = (struct uffdio_api){.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    if (ioctl(faults->fd, UFFDIO_API, &api) != 0)
        return err_new(ERR_DENIED, "this kernel does not load shared memory on demand");
    return NULL;
}

struct err *page_faults_open(void *base, uint64_t bytes, struct page_faults **out_faults)
{
    CLEANUP(cleanup_free) struct page_faults *faults = calloc(1, sizeof(*faults));
    CLEANUP(cleanup_fd) int fd = -1;

    if (faults == NULL)
        return err_new(ERR_NO_MEMORY, "load memory on demand");
    TRY(open_fd(&fd));
    faults->fd = fd;
    faults->base = (uint64_t)(uintptr_t)base;
    faults->bytes = bytes;
    TRY(negotiate(faults));
    struct uffdio_register watch = {.range = {.start = faults->base, .len = bytes},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(fd, UFFDIO_REGISTER, &watch) != 0)
        return err_errno(errno, "watch guest memory for page faults");
    faults->fd = TAKE_FD(fd);
    *out_faults = TAKE_PTR(faults);
    return NULL;
}

static void wake(const struct page_faults *faults, uint64_t offset, uint64_t bytes)
{
    struct uffdio_range range = {.start = faults->base + offset, .len = bytes};

    (void)ioctl(faults->fd, UFFDIO_WAKE, &range);
}

/* The kernel wakes who waits before it ends the watch, so who comes in between would wait for ever.
 * When it has ended nobody can come any more, and all are woken once again. */
void page_faults_end(struct page_faults *faults)
{
    struct uffdio_range range = {.start = faults->base, .len = faults->bytes};

    (void)ioctl(faults->fd, UFFDIO_UNREGISTER, &range);
    wake(faults, 0, faults->bytes);
}

void page_faults_close(struct page_faults *faults)
{
    if (faults == NULL)
        return;
    cleanup_fd(&faults->fd); /* ends the watch */
    free(faults);
}

int page_faults_fd(const struct page_faults *faults)
{
    return faults->fd;
}

bool page_faults_take(struct page_faults *faults, uint64_t *out_offset)
{
    struct uffd_msg message;

    while (read(faults->fd, &message, sizeof(message)) == (ssize_t)sizeof(message)) {
        if (message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        *out_offset = (message.arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1)) - faults->base;
        return true;
    }
    return false;
}

/* What an attempt to fill came to: how far it got, and whether the page there is present. */
struct fill_step {
    uint64_t done;
    bool is_over; /* the watch has ended: nothing is to be filled any more */
};

/* Of an attempt at `offset`. A page that is there may have come without a wake, by the memory's
 * file; who ends the watch wakes all. */
static struct err *after_fill(const struct page_faults *faults, uint64_t offset, int errnum,
                              int64_t done, struct fill_step *out_step)
{
    *out_step = (struct fill_step){.done = done > 0 ? (uint64_t)done : 0};
    if (errnum == 0 || errnum == EAGAIN)
        return NULL;
    if (errnum == EEXIST) {
        wake(faults, offset + out_step->done, PAGE_BYTES);
        out_step->done += PAGE_BYTES;
        return NULL;
    }
    out_step->is_over = errnum == ENOENT || errnum == ESRCH;
    return out_step->is_over ? NULL : err_errno(errnum, "fill guest memory");
}

struct err *page_faults_fill(struct page_faults *faults, uint64_t offset, const void *data,
                             uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        struct uffdio_copy copy = {
            .dst = faults->base + offset + at,
            .src = (uint64_t)(uintptr_t)data + at,
            .len = bytes - at,
        };
        struct fill_step step;
        int errnum = ioctl(faults->fd, UFFDIO_COPY, &copy) == 0 ? 0 : errno;
        TRY(after_fill(faults, offset + at, errnum, copy.copy, &step));
        if (step.is_over)
            return NULL;
        at += step.done;
    }
    return NULL;
}

struct err *page_faults_fill_zero(struct page_faults *faults, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        struct uffdio_zeropage zero = {
            .range = {.start = faults->base + offset + at, .len = bytes - at}};
        struct fill_step step;
        int errnum = ioctl(faults->fd, UFFDIO_ZEROPAGE, &zero) == 0 ? 0 : errno;
        TRY(after_fill(faults, offset + at, errnum, zero.zeropage, &step));
        if (step.is_over)
            return NULL;
        at += step.done;
    }
    return NULL;
}

void page_faults_poison(struct page_faults *faults, uint64_t offset, uint64_t bytes)
{
    struct uffdio_poison poison = {.range = {.start = faults->base + offset, .len = bytes}};

    if (faults->can_poison)
        (void)ioctl(faults->fd, UFFDIO_POISON, &poison);
}
