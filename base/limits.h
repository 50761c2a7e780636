/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.h - the most of everything that comes from outside. Parsers check against these before
 * they allocate or loop.
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#include <stdint.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

#define PAGE_BYTES ((uint64_t)4096) /* wide: products with it can pass 4 GiB */
#define PAGE_SHIFT 12

/* The machine. */
#define MACHINE_NAME_MAX       63u /* bytes, without the terminator */
#define MACHINE_VCPUS_MAX      64u
#define MACHINE_MEMORY_MIB_MAX ((uint64_t)16 << 20) /* 16 TiB */
#define MACHINE_REGIONS_MAX    8u
#define MACHINE_DISKS_MAX      16u
#define MACHINE_QUEUES_MAX     4u /* of one disk */
#define MACHINE_NETS_MAX       8u
#define MACHINE_CMDLINE_MAX    2047u
#define CPU_MODEL_BYTES_MAX    (16u * KIB)  /* file of a model */
#define MACHINE_FILE_BYTES_MAX (512u * MIB) /* kernel or initrd */
#define MACHINE_VECTORS_MAX    512u         /* message-signalled interrupts of all devices */
#define PATH_BYTES_MAX         4095u

/* State. */
#define STATE_SECTIONS_MAX      1024u
#define STATE_SECTION_BYTES_MAX (4u * MIB)
#define STATE_SECTION_NAME_MAX  63u
#define STATE_BYTES_MAX         (64u * MIB)

/* Control protocol. */
#define CONTROL_MESSAGE_BYTES_MAX (80u * MIB)
#define CONTROL_FDS_MAX           250u
#define CONTROL_CLIENTS_MAX       32u

/* Migration. */
#define MIGRATION_CHANNELS_MAX      16u
#define MIGRATION_SESSIONS_MAX      64u /* at once, on one host */
#define MIGRATION_GREETING_MAX      64u /* connections that have not said which session is theirs */
#define MIGRATION_FRAME_HEAD_MAX    (64u * KIB)
#define MIGRATION_BATCH_PAGES_MAX   256u
#define MIGRATION_BATCH_BYTES_MAX   (MIGRATION_BATCH_PAGES_MAX * (PAGE_BYTES + 16u))
#define MIGRATION_MESSAGE_BYTES_MAX (72u * MIB)

/* Snapshots. */
#define SNAPSHOT_CHAIN_MAX          128u
#define SNAPSHOT_MANIFEST_BYTES_MAX (16u * MIB)
#define SNAPSHOT_ID_MAX             63u

/* Disks. */
#define DISK_BACKING_DEPTH_MAX 128u
#define DISK_BYTES_MAX         ((uint64_t)1 << 56)
#define DISK_RATE_MAX          ((uint64_t)1 << 40) /* requests or bytes a second; more is no limit */
#define DISK_TABLES_BYTES_MAX  (128u * MIB) /* L2 tables in memory, of all images of a process */
#define DISK_TABLES_BYTES_MIN  (64u * KIB)  /* of these, what each image keeps once it had it */
#define LAYER_RECORD_BYTES_MAX (4u * MIB)
#define LAYER_RECORD_MOST      65536u /* of each list in it */
#define IMAGE_FOLDERS_MAX      16u    /* that the operator names for backing files */

/* virtio. */
#define VIRTQUEUE_SIZE_MAX  1024u
#define VIRTIO_REQUEST_IOVS 256u

#endif
