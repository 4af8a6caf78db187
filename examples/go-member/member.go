package main

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const (
	tasksTopic        = "chorus/tasks"
	coordinationTopic = "chorus/coordination/v1"
	// A publisher waits this long between looks at whether a topic has a peer.
	peerPoll = 50 * time.Millisecond
)

// envelope is the JSON object on every topic; `from` is the peer id of the message's signer.
type envelope struct {
	Type      string          `json:"type"`
	From      string          `json:"from"`
	Timestamp json.RawMessage `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

type member struct {
	host   host.Host
	topics map[string]*pubsub.Topic
	news   *pubsub.Subscription
	// grafted is closed once this member is in the gossip mesh of the coordination topic: what is published
	// there before may pass it by.
	grafted chan struct{}
}

// Trace is called by gossipsub for everything it does; a graft is what we wait for.
func (m *member) Trace(event *pb.TraceEvent) {
	if event.GetType() == pb.TraceEvent_GRAFT && event.GetGraft().GetTopic() == coordinationTopic {
		select {
		case <-m.grafted:
		default:
			close(m.grafted)
		}
	}
}

// networkKey is the pre-shared key of the private network: HKDF-SHA256 of the cluster secret.
func networkKey(secret, license string) []byte {
	root := []byte(secret)
	if secret == "" {
		root = derive([]byte(license), "chorus/v1/dev-cluster")
	}
	return derive(root, "chorus/v1/network")
}

func derive(secret []byte, info string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, info, 32)
	if err != nil {
		panic(err) // only a length that SHA-256 cannot give
	}
	return key
}

// join connects to one agent and follows the coordination topic; gossip brings the rest of the mesh. On the
// topic it will publish. `more`: options of gossipsub.
func join(ctx context.Context, agent string, key []byte, topic string, more ...pubsub.Option) (*member, error) {
	private, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	node, err := libp2p.New(
		libp2p.Identity(private),
		libp2p.PrivateNetwork(pnet.PSK(key)),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.NoListenAddrs,
	)
	if err != nil {
		return nil, err
	}
	joined := &member{host: node, topics: map[string]*pubsub.Topic{}, grafted: make(chan struct{})}
	if err := joined.connect(ctx, agent, topic, more); err != nil {
		joined.close()
		return nil, err
	}
	return joined, nil
}

func (m *member) connect(ctx context.Context, agent, topic string, more []pubsub.Option) error {
	options := append(more, pubsub.WithMessageSignaturePolicy(pubsub.StrictSign), pubsub.WithEventTracer(m))
	gossip, err := pubsub.NewGossipSub(ctx, m.host, options...)
	if err != nil {
		return err
	}
	for _, name := range []string{topic, coordinationTopic} {
		if m.topics[name], err = gossip.Join(name); err != nil {
			return err
		}
	}
	if m.news, err = m.topics[coordinationTopic].Subscribe(); err != nil {
		return err
	}
	info, err := peer.AddrInfoFromString(agent)
	if err != nil {
		return err
	}
	dialling, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return m.host.Connect(network.WithDialPeerTimeout(dialling, 15*time.Second), *info)
}

// publish signs and sends one message, once we hear the mesh and the topic has a peer to carry it.
func (m *member) publish(ctx context.Context, topic, kind string, data map[string]any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	select {
	case <-m.grafted:
	case <-ctx.Done():
		return fmt.Errorf("nobody took us into %s: %w", coordinationTopic, ctx.Err())
	}
	for len(m.topics[topic].ListPeers()) == 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody follows %s: %w", topic, ctx.Err())
		case <-time.After(peerPoll):
		}
	}
	message, err := json.Marshal(envelope{
		Type: kind, From: m.host.ID().String(), Timestamp: timestamp(time.Now()), Data: body,
	})
	if err != nil {
		return err
	}
	return m.topics[topic].Publish(ctx, message)
}

func (m *member) close() { _ = m.host.Close() }

// timestamp is the envelope's form of a time: RFC 3339, UTC, milliseconds.
func timestamp(now time.Time) json.RawMessage {
	return json.RawMessage(now.UTC().Format(`"2006-01-02T15:04:05.000Z07:00"`))
}
