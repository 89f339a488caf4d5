/* The work through ENet, as its tutorial uses it: one thread, enet_host_service, no compression, no bandwidth limits. */
#include "work.h"

#include <enet/enet.h>

/* Packets handed over and not yet gone (unreliable) or acknowledged (reliable); ENet itself would take any number. In the range in
 * which ENet delivers most. */
#define OUTSTANDING_MAX 4096
/* The same in bytes, for large messages. */
#define OUTSTANDING_BYTES (8 * 1024 * 1024)

static ENetHost *host;
static ENetPeer *peer;
static size_t outstanding, outstanding_bytes;
static int gone;

static void packet_gone(ENetPacket *packet)
{
    outstanding--;
    outstanding_bytes -= packet->dataLength;
}

uint16_t net_listen(void)
{
    ENetAddress address;

    enet_initialize();
    enet_address_set_host(&address, "127.0.0.1");
    address.port = 0;
    host = enet_host_create(&address, 1, 1, 0, 0);
    if (!host || enet_socket_get_address(host->socket, &address) < 0)
        bench_fail("ENet cannot listen");
    return address.port;
}

void net_connect(uint16_t port)
{
    ENetAddress address;
    ENetEvent event;

    enet_initialize();
    enet_address_set_host(&address, "127.0.0.1");
    address.port = port;
    host = enet_host_create(NULL, 1, 1, 0, 0);
    peer = host ? enet_host_connect(host, &address, 1, 0) : NULL;
    if (!peer || enet_host_service(host, &event, 5000) <= 0 || event.type != ENET_EVENT_TYPE_CONNECT)
        bench_fail("ENet cannot connect");
}

int net_send(int reliable, const void *data, size_t len)
{
    ENetPacket *packet;

    if (outstanding >= OUTSTANDING_MAX || outstanding_bytes >= OUTSTANDING_BYTES)
        return 0;
    packet = enet_packet_create(data, len, reliable ? ENET_PACKET_FLAG_RELIABLE : 0);
    if (!packet)
        bench_fail("ENet has no memory");
    packet->freeCallback = packet_gone;
    outstanding++;
    outstanding_bytes += len;
    if (enet_peer_send(peer, 0, packet) < 0)
        bench_fail("ENet cannot send");
    return 1;
}

static int take(ENetEvent *event, net_handler handler)
{
    switch (event->type) {
    case ENET_EVENT_TYPE_CONNECT:
        peer = event->peer;
        return 0;
    case ENET_EVENT_TYPE_RECEIVE:
        handler(event->packet->data, event->packet->dataLength);
        enet_packet_destroy(event->packet);
        return 1;
    case ENET_EVENT_TYPE_DISCONNECT:
        gone = 1;
        return 0;
    default:
        return 0;
    }
}

int net_receive(int timeout_ms, net_handler handler)
{
    ENetEvent event;
    int handled = 0, more = enet_host_service(host, &event, (enet_uint32)timeout_ms);

    while (more > 0) {
        handled += take(&event, handler);
        more = enet_host_check_events(host, &event);
    }
    return gone ? -1 : handled;
}

void net_flush(void)
{
    enet_host_flush(host);
}

void net_blocked(net_handler handler)
{
    /* Often a look is enough: unreliable packets are gone once they are sent. */
    net_receive(0, handler);
    if (outstanding >= OUTSTANDING_MAX || outstanding_bytes >= OUTSTANDING_BYTES)
        net_receive(1, handler);
}

void net_close(void)
{
    if (peer && !gone) {
        enet_peer_disconnect_now(peer, 0);
        enet_host_flush(host);
    }
    enet_host_destroy(host);
    enet_deinitialize();
}
