// The peer of pubsub: go-libp2p in two processes, with the same layers as a CHORUS agent.
//
//	gossip echo             listens, prints its multiaddr, and answers every message on its topic
//	gossip ping ADDR N B    N round trips of B bytes with it
//	gossip count N          listens, prints its multiaddr, and says how many of each burst have come (at most N each)
//	gossip burst ADDR N B   N messages of B bytes one way to it; prints how many a second
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
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
	small     = 1024            // messages that wait in queues where one follows the other
	quiet     = 5 * time.Second // what has not come by then after the last one is lost
)

func main() {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "ping":
		ping(os.Args[2], measure.Number(3), measure.Number(4))
	case len(os.Args) > 1 && os.Args[1] == "count":
		count(measure.Number(2))
	case len(os.Args) > 2 && os.Args[1] == "burst":
		burst(os.Args[2], measure.Number(3), measure.Number(4))
	default:
		echo()
	}
}

// join makes a node with the same layers as a CHORUS agent: pnet, Noise, Yamux, signed gossipsub. What finds its queues
// full is dropped by go-libp2p, so they hold as many messages as are under way at once.
func join(ctx context.Context, queue int) (host.Host, *pubsub.Topic, *pubsub.Subscription) {
	node, err := libp2p.New(
		libp2p.PrivateNetwork(pnet.PSK(make([]byte, 32))),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
	)
	measure.Check(err)
	gossip, err := pubsub.NewGossipSub(ctx, node,
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerOutboundQueueSize(queue),
		pubsub.WithValidateQueueSize(queue),
	)
	measure.Check(err)
	topic, err := gossip.Join(topicName)
	measure.Check(err)
	messages, err := topic.Subscribe(pubsub.WithBufferSize(queue))
	measure.Check(err)
	return node, topic, messages
}

func echo() {
	ctx := context.Background()
	node, topic, messages := join(ctx, small)
	fmt.Printf("%s/p2p/%s\n", node.Addrs()[0], node.ID())
	for {
		message, err := messages.Next(ctx)
		measure.Check(err)
		if message.ReceivedFrom != node.ID() {
			measure.Check(topic.Publish(ctx, message.Data))
		}
	}
}

// connect returns when both are in the topic's mesh.
func connect(ctx context.Context, node host.Host, address string) {
	info, err := peer.AddrInfoFromString(address)
	measure.Check(err)
	measure.Check(node.Connect(ctx, *info))
	time.Sleep(settle)
}

func ping(address string, count, size int) {
	ctx := context.Background()
	node, topic, messages := join(ctx, small)
	connect(ctx, node, address)
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

// count answers a burst with how many of its messages have come, once all have, or once no more come.
func count(most int) {
	ctx := context.Background()
	node, topic, messages := join(ctx, most)
	fmt.Printf("%s/p2p/%s\n", node.Addrs()[0], node.ID())
	arrived := map[int]bool{}
	for {
		message, err := next(ctx, messages, len(arrived) > 0)
		wanted := 0
		if err == nil {
			if message.ReceivedFrom == node.ID() {
				continue
			}
			var number int
			_, err = fmt.Sscan(string(message.Data), &number, &wanted)
			measure.Check(err)
			arrived[number] = true
		} else if !errors.Is(err, context.DeadlineExceeded) {
			measure.Check(err)
		}
		if err != nil || len(arrived) == wanted {
			measure.Check(topic.Publish(ctx, fmt.Append(nil, len(arrived))))
			clear(arrived)
		}
	}
}

// next returns the next message, or when `pressing` an error once none came for a while.
func next(ctx context.Context, messages *pubsub.Subscription, pressing bool) (*pubsub.Message, error) {
	if pressing {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, quiet)
		defer cancel()
	}
	return messages.Next(ctx)
}

func burst(address string, count, size int) {
	ctx := context.Background()
	// Its own messages come back to it, and lie there until all are sent.
	node, topic, messages := join(ctx, 2*count)
	connect(ctx, node, address)
	send := func(count int) time.Duration {
		started := time.Now()
		for i := range count {
			sent := fmt.Sprintf("%d %d %s", i, count, strings.Repeat("x", size))[:size]
			measure.Check(topic.Publish(ctx, []byte(sent)))
		}
		for {
			message, err := messages.Next(ctx)
			measure.Check(err)
			if message.ReceivedFrom == node.ID() {
				continue
			}
			arrived, err := strconv.Atoi(string(message.Data))
			measure.Check(err)
			if arrived != count {
				measure.Check(fmt.Errorf("of %d messages of a burst %d were lost", count, count-arrived))
			}
			return time.Since(started)
		}
	}
	send(min(count, small))
	measure.Print([]float64{float64(count) / send(count).Seconds()})
}
