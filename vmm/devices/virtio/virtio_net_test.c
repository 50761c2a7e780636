/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net_test.c - packets both ways, with a pair of sockets in the tap's place. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/devices/virtio/net_announce.h"
#include "vmm/devices/virtio/virtio_driver_fake.h"
#include "vmm/devices/virtio/virtio_net.h"

#define RAM_BYTES (4 * MIB)
#define DATA_AT   0x200000u
#define HEADER    12u

enum { RECEIVE, TRANSMIT, CONTROL };

struct bench {
    struct device_host_fake fake;
    struct guest_memory *memory;
    struct pci_bus *bus;
    struct device *net;
    int wire; /* the other end of the tap */
    struct virtio_driver_fake driver;
    struct virtqueue_driver_fake rings[3];
};

static void bench_init_bare(struct bench *bench, struct guest_memory *memory)
{
    struct virtio_net_options options = {.mac = {0x52, 0x54, 0, 1, 2, 3}};
    int fds[2];

    memset(bench, 0, sizeof(*bench));
    bench->memory = memory;
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
    bench->wire = fds[0];
    options.tap.fd = fds[1];
    device_host_fake_init(&bench->fake, bench->memory);
    ASSERT_OK(pci_bus_create(&bench->fake.host, &bench->bus));
    ASSERT_OK(virtio_net_create(&bench->fake.host, bench->bus, &options, &bench->net));
}

static void bench_init(struct bench *bench, uint64_t without_features)
{
    struct guest_memory *memory = NULL;

    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &memory));
    bench_init_bare(bench, memory);
    ASSERT_OK(bench->net->ops->start(bench->net));
    virtio_driver_fake_init(&bench->driver, &bench->fake, 1);
    uint64_t features = virtio_driver_fake_features(&bench->driver) & ~without_features;
    assert_true(virtio_driver_fake_negotiate(&bench->driver, features));
    for (unsigned i = 0; i < 3; i++) {
        virtqueue_driver_fake_init(&bench->rings[i], memory, gpa(0x10000 * (i + 1)), 16);
        virtio_driver_fake_set_queue(&bench->driver, i, &bench->rings[i]);
    }
    virtio_driver_fake_ready(&bench->driver);
}

static void bench_finish_device(struct bench *bench)
{
    bench->net->ops->destroy(bench->net);
    (void)close(bench->wire);
    struct device *bus = pci_bus_device(bench->bus);
    bus->ops->destroy(bus);
    device_host_fake_finish(&bench->fake);
}

static void bench_finish(struct bench *bench)
{
    bench_finish_device(bench);
    guest_memory_destroy(bench->memory);
}

static uint32_t wait_used(struct virtqueue_driver_fake *rings)
{
    uint32_t head = 0;
    uint32_t written = 0;

    while (!virtqueue_driver_fake_used(rings, &head, &written))
        (void)sched_yield();
    return written;
}

static void offer_buffer(struct bench *bench, unsigned n, uint32_t len)
{
    const struct driver_buffer buffer = {gpa(DATA_AT + n * 0x10000), len, VIRTQUEUE_WRITABLE};

    (void)virtqueue_driver_fake_add(&bench->rings[RECEIVE], &buffer, 1);
    virtio_driver_fake_notify(&bench->driver, RECEIVE);
}

static void wire_send(struct bench *bench, const void *packet, size_t len)
{
    assert_int_equal(send(bench->wire, packet, len, 0), len);
}

TEST(the_configuration_has_address_and_link)
{
    struct bench bench;
    bench_init(&bench, 0);

    assert_int_equal(virtio_driver_fake_config(&bench.driver, 0, 4), 0x01005452);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 4, 2), 0x0302);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 6, 2), VIRTIO_NET_S_LINK_UP);
    bench_finish(&bench);
}

TEST(a_packet_of_the_guest_goes_out)
{
    struct bench bench;
    uint8_t packet[HEADER + 5] = {[HEADER] = 'h', 'e', 'l', 'l', 'o'};
    uint8_t got[64];
    bench_init(&bench, 0);
    assert_true(guest_write(bench.memory, gpa(DATA_AT), packet, sizeof(packet)));
    const struct driver_buffer buffers[] = {{gpa(DATA_AT), HEADER, VIRTQUEUE_READABLE},
                                            {gpa(DATA_AT + HEADER), 5, VIRTQUEUE_READABLE}};

    (void)virtqueue_driver_fake_add(&bench.rings[TRANSMIT], buffers, 2);
    virtio_driver_fake_notify(&bench.driver, TRANSMIT);

    assert_int_equal(recv(bench.wire, got, sizeof(got), 0), sizeof(packet));
    assert_memory_equal(got, packet, sizeof(packet));
    (void)wait_used(&bench.rings[TRANSMIT]);
    bench_finish(&bench);
}

TEST(a_packet_from_outside_arrives_with_its_buffer_count)
{
    struct bench bench;
    uint8_t packet[HEADER + 6] = {[HEADER] = 'p', 'a', 'c', 'k', 'e', 't'};
    uint8_t got[HEADER + 6];
    bench_init(&bench, 0);
    offer_buffer(&bench, 0, 2048);

    wire_send(&bench, packet, sizeof(packet));

    assert_int_equal(wait_used(&bench.rings[RECEIVE]), sizeof(packet));
    assert_true(guest_read(bench.memory, gpa(DATA_AT), got, sizeof(got)));
    assert_memory_equal(&got[HEADER], "packet", 6);
    assert_int_equal(got[10], 1);
    bench.net->ops->stop(bench.net); /* the interrupt follows the used entry */
    assert_true(virtio_driver_fake_interrupts(&bench.driver, RECEIVE) >= 1);
    bench_finish(&bench);
}

TEST(a_large_packet_is_merged_from_several_buffers)
{
    struct bench bench;
    uint8_t packet[HEADER + 5000];
    uint8_t got[HEADER];
    memset(packet, 0x77, sizeof(packet));
    bench_init(&bench, 0);
    offer_buffer(&bench, 0, 2048);
    offer_buffer(&bench, 1, 2048);

    wire_send(&bench, packet, sizeof(packet));
    offer_buffer(&bench, 2, 2048);

    assert_int_equal(wait_used(&bench.rings[RECEIVE]), 2048);
    assert_int_equal(wait_used(&bench.rings[RECEIVE]), 2048);
    assert_int_equal(wait_used(&bench.rings[RECEIVE]), sizeof(packet) - 4096);
    assert_true(guest_read(bench.memory, gpa(DATA_AT), got, sizeof(got)));
    assert_int_equal(got[10], 3);
    bench_finish(&bench);
}

TEST(without_merging_a_packet_that_does_not_fit_is_dropped)
{
    struct bench bench;
    uint8_t packet[HEADER + 500] = {0};
    bench_init(&bench, (uint64_t)1 << VIRTIO_NET_F_MRG_RXBUF);
    offer_buffer(&bench, 0, 100);
    offer_buffer(&bench, 1, 100);

    wire_send(&bench, packet, sizeof(packet));
    wire_send(&bench, packet, 60);

    assert_int_equal(wait_used(&bench.rings[RECEIVE]), 60);
    bench_finish(&bench);
}

TEST(packets_wait_for_buffers_in_order)
{
    struct bench bench;
    uint8_t packet[HEADER + 20] = {0};
    bench_init(&bench, 0);

    for (uint8_t i = 0; i < 10; i++) {
        packet[HEADER] = i;
        wire_send(&bench, packet, sizeof(packet));
    }
    for (uint8_t i = 0; i < 10; i++) {
        uint8_t got[HEADER + 1];
        offer_buffer(&bench, i, 2048);
        (void)wait_used(&bench.rings[RECEIVE]);
        assert_true(guest_read(bench.memory, gpa(DATA_AT + i * 0x10000u), got, sizeof(got)));
        assert_int_equal(got[HEADER], i);
    }
    bench_finish(&bench);
}

TEST(a_stopped_card_moves_nothing)
{
    struct bench bench;
    uint8_t packet[HEADER + 20] = {0};
    uint32_t head;
    uint32_t written;
    bench_init(&bench, 0);
    offer_buffer(&bench, 0, 2048);

    bench.net->ops->stop(bench.net);
    wire_send(&bench, packet, sizeof(packet));
    assert_false(virtqueue_driver_fake_used(&bench.rings[RECEIVE], &head, &written));
    ASSERT_OK(bench.net->ops->start(bench.net));

    assert_int_equal(wait_used(&bench.rings[RECEIVE]), sizeof(packet));
    bench_finish(&bench);
}

TEST(a_restored_card_announces_itself_until_the_guest_acknowledges)
{
    struct bench source;
    struct bench target;
    uint8_t frame[NET_ANNOUNCE_BYTES + HEADER] = {0};
    bench_init(&source, 0);
    bench_init_bare(&target, source.memory);
    source.net->ops->stop(source.net);

    ASSERT_OK(device_host_fake_move(source.net, target.net));
    ASSERT_OK(target.net->ops->start(target.net));

    assert_int_equal(recv(target.wire, frame, sizeof(frame), 0), sizeof(frame));
    assert_memory_equal(&frame[HEADER + 12], "\x80\x35", 2);
    target.driver = source.driver;
    target.driver.fake = &target.fake;
    assert_int_equal(virtio_driver_fake_config(&target.driver, 6, 2),
                     VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_true(virtio_driver_fake_config_interrupts(&target.driver) >= 1);

    assert_true(guest_write(source.memory, gpa(DATA_AT), "\x03\x00", 2));
    const struct driver_buffer buffers[] = {{gpa(DATA_AT), 2, VIRTQUEUE_READABLE},
                                            {gpa(DATA_AT + 16), 1, VIRTQUEUE_WRITABLE}};
    (void)virtqueue_driver_fake_add(&source.rings[CONTROL], buffers, 2);
    virtio_driver_fake_notify(&target.driver, CONTROL);
    assert_int_equal(wait_used(&source.rings[CONTROL]), 1);

    assert_int_equal(virtio_driver_fake_config(&target.driver, 6, 2), VIRTIO_NET_S_LINK_UP);
    bench_finish_device(&target);
    bench_finish(&source);
}

TEST(unknown_control_commands_are_refused)
{
    struct bench bench;
    uint8_t answer = 0xff;
    bench_init(&bench, 0);
    assert_true(guest_write(bench.memory, gpa(DATA_AT), "\x01\x00", 2));
    const struct driver_buffer buffers[] = {{gpa(DATA_AT), 2, VIRTQUEUE_READABLE},
                                            {gpa(DATA_AT + 16), 1, VIRTQUEUE_WRITABLE}};

    (void)virtqueue_driver_fake_add(&bench.rings[CONTROL], buffers, 2);
    virtio_driver_fake_notify(&bench.driver, CONTROL);
    (void)wait_used(&bench.rings[CONTROL]);

    assert_true(guest_read(bench.memory, gpa(DATA_AT + 16), &answer, 1));
    assert_int_equal(answer, VIRTIO_NET_ERR);
    bench_finish(&bench);
}

TEST(a_state_without_transport_is_refused)
{
    struct bench bench;
    Ferry__VirtioNetState state = FERRY__VIRTIO_NET_STATE__INIT;
    bench_init(&bench, 0);

    assert_fails(bench.net->ops->validate(bench.net, 1, &state.base), ERR_INVALID);

    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_has_address_and_link),
        cmocka_unit_test(a_packet_of_the_guest_goes_out),
        cmocka_unit_test(a_packet_from_outside_arrives_with_its_buffer_count),
        cmocka_unit_test(a_large_packet_is_merged_from_several_buffers),
        cmocka_unit_test(without_merging_a_packet_that_does_not_fit_is_dropped),
        cmocka_unit_test(packets_wait_for_buffers_in_order),
        cmocka_unit_test(a_stopped_card_moves_nothing),
        cmocka_unit_test(a_restored_card_announces_itself_until_the_guest_acknowledges),
        cmocka_unit_test(unknown_control_commands_are_refused),
        cmocka_unit_test(a_state_without_transport_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
