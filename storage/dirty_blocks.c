/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_blocks.c - see dirty_blocks.h.
 *
 *   | header, 4096 bytes | changed | to copy |      one bit for each 64 KiB or more
 *
 * A write takes a ticket: the parity of the round that it belongs to. begin moves the bits and
 * starts the next round under the lock, then waits until nobody of the old round is left. So a bit
 * that was moved is of a write that has arrived, and a write that has not is marked in the new
 * round.
 */
#include "storage/dirty_blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "base/lock.h"
#include "storage/image_lock.h"

#define HEADER_BYTES         4096u
#define USED_BYTES           512u                /* of the header: one sector, written as a whole */
#define MAGIC                0x46657272794462ull /* "FerryDb" */
#define VERSION              1u
#define GRANULARITY_BITS_MIN 16u
#define BITS_MAX             ((uint64_t)1 << 26)
#define IMAGE_NAME_MAX       255u
#define BOOT_ID_BYTES        36u
#define WAIT_NS              NS_PER_S

enum file_state { STATE_OPEN = 1, STATE_CLOSED = 2 };

struct header {
    uint32_t granularity_bits;
    uint64_t virtual_bytes;
    enum file_state state;
    char boot_id[BOOT_ID_BYTES + 1];
    int64_t modified_ns; /* of the image, when closed */
    char image[IMAGE_NAME_MAX + 1];
};

struct dirty_blocks {
    int fd;           /* owned */
    char *path;       /* owned */
    char *image_path; /* owned; NULL: attached */
    bool is_attached; /* not the one who writes to the disk */
    struct header header;
    uint64_t bit_count;
    uint64_t *changed; /* mapped, as to_copy behind it */
    uint64_t *to_copy;
    size_t mapped_bytes;

    struct lock lock;
    struct lock_condition arrived;
    unsigned round GUARDED_BY(&lock);
    uint64_t under_way[2] GUARDED_BY(&lock); /* writes, by the parity of their round */
};

static uint64_t bit_count_of(const struct header *header)
{
    return divide_up(header->virtual_bytes, (uint64_t)1 << header->granularity_bits);
}

/* Each bitmap begins on a page. */
static uint64_t bitmap_room(const struct header *header)
{
    return align_up(bitmap_bytes(bit_count_of(header)) + 1, PAGE_BYTES);
}

static struct err *read_boot_id(char out_id[BOOT_ID_BYTES + 1])
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "read '%s'", path);
    TRY(file_read_at(fd, path, out_id, BOOT_ID_BYTES, 0));
    out_id[BOOT_ID_BYTES] = '\0';
    return NULL;
}

enum durability { LATER, AT_ONCE };

static struct err *write_header(struct dirty_blocks *blocks, enum file_state state,
                                enum durability durability)
{
    uint8_t data[USED_BYTES] = {0};
    struct writer out = writer_of(data, sizeof(data));
    struct header *header = &blocks->header;

    header->state = state;
    TRY(read_boot_id(header->boot_id));
    writer_le64(&out, MAGIC);
    writer_le32(&out, VERSION);
    writer_le32(&out, header->granularity_bits);
    writer_le64(&out, header->virtual_bytes);
    writer_le32(&out, (uint32_t)state);
    writer_le32(&out, (uint32_t)strlen(header->image));
    writer_bytes(&out, header->boot_id, BOOT_ID_BYTES);
    writer_le64(&out, (uint64_t)header->modified_ns);
    writer_bytes(&out, header->image, strlen(header->image));
    ASSERT(writer_ok(&out));
    TRY(file_write_at(blocks->fd, blocks->path, data, sizeof(data), 0));
    return durability == LATER ? NULL : file_sync(blocks->fd, blocks->path);
}

static struct err *parse_header(const char *path, const uint8_t *data, struct header *out_header)
{
    struct reader in = reader_of(data, USED_BYTES);
    struct header header = {0};

    uint64_t magic = reader_le64(&in);
    uint32_t version = reader_le32(&in);
    header.granularity_bits = reader_le32(&in);
    header.virtual_bytes = reader_le64(&in);
    header.state = (enum file_state)reader_le32(&in);
    uint32_t image_len = reader_le32(&in);
    const uint8_t *boot_id = reader_take(&in, BOOT_ID_BYTES);
    header.modified_ns = (int64_t)reader_le64(&in);
    if (magic != MAGIC)
        return err_new(ERR_INVALID,
                       "'%s' is not a file of a disk's changes; it is left as it is: take another "
                       "name, or remove it",
                       path);
    if (version != VERSION)
        return err_new(
            ERR_INCOMPATIBLE,
            "'%s' is of version %u; version %u is known. Without it, all of the disk has "
            "to be copied once more",
            path, version, VERSION);
    if (header.granularity_bits < GRANULARITY_BITS_MIN || header.granularity_bits > 48 ||
        header.virtual_bytes > DISK_BYTES_MAX || bit_count_of(&header) > BITS_MAX ||
        image_len > IMAGE_NAME_MAX)
        return err_new(ERR_INVALID, "'%s' is damaged; remove it, and copy all of the disk", path);
    const uint8_t *image = reader_take(&in, image_len);
    ASSERT(boot_id != NULL && image != NULL);
    memcpy(header.boot_id, boot_id, BOOT_ID_BYTES);
    memcpy(header.image, image, image_len);
    *out_header = header;
    return NULL;
}

static struct err *read_header(struct dirty_blocks *blocks)
{
    uint8_t data[USED_BYTES] = {0};
    uint64_t bytes = 0;

    TRY(file_size(blocks->fd, blocks->path, &bytes));
    if (bytes < HEADER_BYTES)
        return err_new(ERR_INVALID, "'%s' is not a file of a disk's changes", blocks->path);
    TRY(file_read_at(blocks->fd, blocks->path, data, sizeof(data), 0));
    TRY(parse_header(blocks->path, data, &blocks->header));
    if (bytes < HEADER_BYTES + 2 * bitmap_room(&blocks->header))
        return err_new(ERR_INVALID, "'%s' was cut off; remove it, and copy all of the disk",
                       blocks->path);
    return NULL;
}

/* In memory, if that is allowed: a page that could not be read again would end the process. */
static struct err *map(struct dirty_blocks *blocks)
{
    uint64_t room = bitmap_room(&blocks->header);
    void *memory = mmap(NULL, 2 * room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                        blocks->fd, HEADER_BYTES);
    if (memory == MAP_FAILED)
        return err_errno(errno, "map '%s'", blocks->path);
    (void)mlock(memory, 2 * room);
    blocks->changed = memory;
    blocks->to_copy = blocks->changed + room / sizeof(uint64_t);
    blocks->mapped_bytes = 2 * room;
    blocks->bit_count = bit_count_of(&blocks->header);
    return NULL;
}

static void set_image(struct header *header, const char *image)
{
    memset(header->image, 0, sizeof(header->image));
    (void)snprintf(header->image, sizeof(header->image), "%s", name_in_folder(image));
}

/* Room for the whole file is taken now: a mapped page without room would end the process. */
static struct err *make_anew(struct dirty_blocks *blocks, const struct dirty_blocks_image *image)
{
    struct header *header = &blocks->header;

    *header = (struct header){.granularity_bits = GRANULARITY_BITS_MIN,
                              .virtual_bytes = image->virtual_bytes};
    while (bit_count_of(header) > BITS_MAX)
        header->granularity_bits++;
    set_image(header, image->path);
    if (ftruncate(blocks->fd, 0) != 0)
        return err_errno(errno, "empty '%s'", blocks->path);
    int error = posix_fallocate(blocks->fd, 0, (off_t)(HEADER_BYTES + 2 * bitmap_room(header)));
    if (error != 0)
        return err_errno(error, "make room for '%s'", blocks->path);
    TRY(map(blocks));
    bitmap_set_range(blocks->changed, 0, blocks->bit_count);
    return write_header(blocks, STATE_OPEN, AT_ONCE);
}

/* Do the bits say what happened to this image? */
static bool is_trusted(const struct header *found, const struct header *wanted)
{
    if (strcmp(found->image, wanted->image) != 0)
        return false;
    return found->state == STATE_CLOSED
               ? found->modified_ns == wanted->modified_ns
               : found->state == STATE_OPEN && strcmp(found->boot_id, wanted->boot_id) == 0;
}

static struct err *use(struct dirty_blocks *blocks, const struct dirty_blocks_image *image)
{
    struct header wanted = {.modified_ns = image->modified_ns};
    uint64_t bytes = 0;

    TRY(file_size(blocks->fd, blocks->path, &bytes));
    if (bytes == 0)
        return make_anew(blocks, image);
    TRY(read_header(blocks));
    if (blocks->header.virtual_bytes != image->virtual_bytes)
        return make_anew(blocks, image);
    TRY(map(blocks));
    set_image(&wanted, image->path);
    TRY(read_boot_id(wanted.boot_id));
    if (!is_trusted(&blocks->header, &wanted))
        bitmap_set_range(blocks->changed, 0, blocks->bit_count);
    set_image(&blocks->header, image->path);
    return write_header(blocks, STATE_OPEN, AT_ONCE);
}

static void release(struct dirty_blocks *blocks)
{
    if (blocks->changed != NULL)
        (void)munmap(blocks->changed, blocks->mapped_bytes);
    lock_condition_finish(&blocks->arrived);
    lock_finish(&blocks->lock);
    if (blocks->fd >= 0)
        (void)close(blocks->fd);
    free(blocks->path);
    free(blocks->image_path);
    free(blocks);
}

static struct err *create(const char *path, int flags, struct dirty_blocks **out_blocks)
{
    CLEANUP(cleanup_fd) int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0 && errno == ENOENT && (flags & O_CREAT) == 0)
        return err_new(ERR_NOT_FOUND, "there is no '%s'", path);
    if (fd < 0)
        return err_errno(errno, "open '%s'", path);
    struct dirty_blocks *blocks = calloc(1, sizeof(*blocks));
    char *copy = strdup(path);
    if (blocks == NULL || copy == NULL) {
        free(blocks);
        free(copy);
        return err_new(ERR_NO_MEMORY, "open '%s'", path);
    }
    blocks->path = copy;
    blocks->fd = TAKE_FD(fd);
    lock_init(&blocks->lock, LOCK_DIRTY_BLOCKS);
    lock_condition_init(&blocks->arrived);
    *out_blocks = blocks;
    return NULL;
}

int64_t dirty_blocks_modified_ns(const char *image_path)
{
    struct stat status;

    if (stat(image_path, &status) != 0)
        return 0;
    return (int64_t)status.st_mtim.tv_sec * (int64_t)NS_PER_S + (int64_t)status.st_mtim.tv_nsec;
}

static struct err *replace_path(struct dirty_blocks *blocks, const char *image_path)
{
    char *copy = strdup(image_path);

    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "track '%s'", image_path);
    free(blocks->image_path);
    blocks->image_path = copy;
    return NULL;
}

struct err *dirty_blocks_open(const char *path, const struct dirty_blocks_image *image,
                              struct dirty_blocks **out_blocks)
{
    struct dirty_blocks *blocks = NULL;

    ASSERT(image->virtual_bytes <= DISK_BYTES_MAX);
    TRY(create(path, O_CREAT, &blocks));
    struct err *err = image_lock_take(blocks->fd, path, IMAGE_LOCK_WRITER);
    if (err == NULL)
        err = replace_path(blocks, image->path);
    if (err == NULL)
        err = use(blocks, image);
    if (err != NULL) {
        release(blocks);
        return err_wrap(err, "changes of '%s'", image->path);
    }
    *out_blocks = blocks;
    return NULL;
}

struct err *dirty_blocks_attach(const char *path, struct dirty_blocks **out_blocks)
{
    struct dirty_blocks *blocks = NULL;

    TRY(create(path, 0, &blocks));
    blocks->is_attached = true;
    struct err *err = read_header(blocks);
    if (err == NULL)
        err = map(blocks);
    if (err != NULL) {
        release(blocks);
        return err;
    }
    *out_blocks = blocks;
    return NULL;
}

static struct err *sync_bits(const struct dirty_blocks *blocks)
{
    if (msync(blocks->changed, blocks->mapped_bytes, MS_SYNC) != 0)
        return err_errno(errno, "flush '%s'", blocks->path);
    return NULL;
}

struct err *dirty_blocks_close(struct dirty_blocks *blocks)
{
    struct err *err = NULL;

    if (blocks == NULL)
        return NULL;
    /* The bits first: a header that says "closed" is believed. */
    if (!blocks->is_attached) {
        err = sync_bits(blocks);
        blocks->header.modified_ns = dirty_blocks_modified_ns(blocks->image_path);
        if (err == NULL)
            err = write_header(blocks, STATE_CLOSED, AT_ONCE);
    }
    release(blocks);
    return err;
}

struct err *dirty_blocks_set_image(struct dirty_blocks *blocks, const char *image)
{
    TRY(replace_path(blocks, image));
    /* A power cut makes everything count as changed, whatever name it leaves. */
    set_image(&blocks->header, image);
    return write_header(blocks, STATE_OPEN, LATER);
}

unsigned dirty_blocks_enter(struct dirty_blocks *blocks, uint64_t offset, uint64_t len)
{
    unsigned shift = blocks->header.granularity_bits;

    ASSERT(range_is_within(offset, len, blocks->header.virtual_bytes));
    lock_acquire(&blocks->lock);
    unsigned ticket = blocks->round & 1;
    blocks->under_way[ticket]++;
    if (len > 0)
        for (uint64_t bit = offset >> shift; bit <= (offset + len - 1) >> shift; bit++)
            if (!bitmap_test(blocks->changed, bit))
                bitmap_set(blocks->changed, bit);
    lock_release(&blocks->lock);
    return ticket;
}

void dirty_blocks_leave(struct dirty_blocks *blocks, unsigned ticket)
{
    lock_acquire(&blocks->lock);
    ASSERT(blocks->under_way[ticket] > 0);
    if (--blocks->under_way[ticket] == 0)
        lock_condition_broadcast(&blocks->arrived);
    lock_release(&blocks->lock);
}

/* Without a machine the file says "closed" and is trusted after a power cut, which must not find
 * bits in neither place. */
static struct err *move_bits(struct dirty_blocks *blocks) REQUIRES(&blocks->lock)
{
    size_t words = bitmap_words(blocks->bit_count);

    for (size_t word = 0; word < words; word++)
        if (blocks->changed[word] != 0)
            bitmap_atomic_or_word(blocks->to_copy, word, blocks->changed[word]);
    if (blocks->is_attached)
        TRY(sync_bits(blocks));
    for (size_t word = 0; word < words; word++)
        if (blocks->changed[word] != 0)
            blocks->changed[word] = 0;
    return NULL;
}

static struct err *begin_locked(struct dirty_blocks *blocks) REQUIRES(&blocks->lock)
{
    unsigned old = blocks->round & 1;
    uint64_t deadline_ns = clock_monotonic_ns() + WAIT_NS;

    /* Of the round before: an earlier begin may have given up on them. */
    while (blocks->under_way[1 - old] > 0)
        if (!lock_condition_wait_until(&blocks->arrived, &blocks->lock, deadline_ns))
            return err_new(ERR_TIMEOUT, "writes to the disk do not come to an end");
    TRY(move_bits(blocks));
    blocks->round++;
    while (blocks->under_way[old] > 0)
        if (!lock_condition_wait_until(&blocks->arrived, &blocks->lock, deadline_ns))
            return err_new(ERR_TIMEOUT, "writes to the disk do not come to an end");
    return NULL;
}

/* Without a machine nobody writes, and nobody may begin to. */
static struct err *begin_attached(struct dirty_blocks *blocks) REQUIRES(&blocks->lock)
{
    TRY(image_lock_take(blocks->fd, blocks->path, IMAGE_LOCK_WRITER));
    struct err *err = begin_locked(blocks);
    struct err *lock_err = image_lock_lower(blocks->fd, blocks->path, IMAGE_LOCK_NONE);
    if (err == NULL)
        return lock_err;
    err_free(lock_err);
    return err;
}

struct err *dirty_blocks_begin(struct dirty_blocks *blocks)
{
    lock_acquire(&blocks->lock);
    struct err *err = blocks->is_attached ? begin_attached(blocks) : begin_locked(blocks);
    lock_release(&blocks->lock);
    return err_wrap(err, "begin a copy, '%s'", blocks->path);
}

bool dirty_blocks_next(struct dirty_blocks *blocks, enum dirty_blocks_kind kind, uint64_t from,
                       struct dirty_range *out_range)
{
    const uint64_t *bits = kind == DIRTY_BLOCKS_CHANGED ? blocks->changed : blocks->to_copy;
    unsigned shift = blocks->header.granularity_bits;
    uint64_t end = blocks->header.virtual_bytes;

    if (from >= end)
        return false;
    uint64_t first = bitmap_next_set(bits, blocks->bit_count, from >> shift);
    if (first == blocks->bit_count)
        return false;
    uint64_t last = bitmap_next_clear(bits, blocks->bit_count, first);
    uint64_t offset = MAX(first << shift, from);
    *out_range = (struct dirty_range){offset, MIN(last << shift, end) - offset};
    return true;
}

void dirty_blocks_done(struct dirty_blocks *blocks, struct dirty_range range)
{
    unsigned shift = blocks->header.granularity_bits;
    uint64_t end = range.offset + range.bytes;
    uint64_t first = align_up(range.offset, (uint64_t)1 << shift) >> shift;
    uint64_t last = end == blocks->header.virtual_bytes ? blocks->bit_count : end >> shift;

    /* A part that was copied in part is not done. */
    for (uint64_t bit = first; bit < last; bit++)
        __atomic_fetch_and(&blocks->to_copy[bit / BITMAP_WORD_BITS],
                           ~((uint64_t)1 << (bit % BITMAP_WORD_BITS)), __ATOMIC_RELEASE);
}

uint64_t dirty_blocks_granularity(const struct dirty_blocks *blocks)
{
    return (uint64_t)1 << blocks->header.granularity_bits;
}

uint64_t dirty_blocks_virtual_bytes(const struct dirty_blocks *blocks)
{
    return blocks->header.virtual_bytes;
}
