// The peer of a pubsub round trip: go-libp2p in two processes, with the same layers as a CHORUS agent.
//
//	gossip echo            listens, prints its multiaddr, and answers every message on its topic
//	gossip ping ADDR N B   N round trips of B bytes with it
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"chorus.example/bench-peers/measure"
)

const (
	topicName = "bench"
	settle    = 2 * time.Second // two heartbeats: both are in the topic's mesh
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "ping" {
		ping(os.Args[2], measure.Number(3), measure.Number(4))
	} else {
		echo()
	}
}

// join makes a node with the same layers as a CHORUS agent: pnet, Noise, Yamux, signed gossipsub.
func join(ctx context.Context) (host.Host, *pubsub.Topic, *pubsub.Subscription) {
	node, err := libp2p.New(
		libp2p.PrivateNetwork(pnet.PSK(make([]byte, 32))),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
	)
	measure.Check(err)
	gossip, err := pubsub.NewGossipSub(ctx, node, pubsub.WithFloodPublish(true))
	measure.Check(err)
	topic, err := gossip.Join(topicName)
	measure.Check(err)
	messages, err := topic.Subscribe()
	measure.Check(err)
	return node, topic, messages
}

func echo() {
	ctx := context.Background()
	node, topic, messages := join(ctx)
	fmt.Printf("%s/p2p/%s\n", node.Addrs()[0], node.ID())
	for {
		message, err := messages.Next(ctx)
		measure.Check(err)
		if message.ReceivedFrom != node.ID() {
			measure.Check(topic.Publish(ctx, message.Data))
		}
	}
}

func ping(address string, count, size int) {
	ctx := context.Background()
	node, topic, messages := join(ctx)
	info, err := peer.AddrInfoFromString(address)
	measure.Check(err)
	measure.Check(node.Connect(ctx, *info))
	time.Sleep(settle)
	measure.Times(count, func(i int) {
		sent := fmt.Sprintf("%d %s", i, strings.Repeat("x", size))[:size]
		measure.Check(topic.Publish(ctx, []byte(sent)))
		for {
			message, err := messages.Next(ctx)
			measure.Check(err)
			if message.ReceivedFrom != node.ID() && string(message.Data) == sent {
				return
			}
		}
	})
}
