// The peer of DHT puts and gets: twenty nodes of go-libp2p-kad-dht in one process, with the same layers as CHORUS agents.
//
//	dht put N B   N puts of B bytes by one node
//	dht get N B   N gets by another node of what the first has put
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"chorus.example/bench-peers/measure"
)

const (
	nodes  = 20
	settle = 30 * time.Second // until every routing table is full
)

// any takes every value: nothing is signed or checked here.
type any struct{}

func (any) Validate(string, []byte) error        { return nil }
func (any) Select(string, [][]byte) (int, error) { return 0, nil }

func main() {
	ctx := context.Background()
	mesh := start(ctx)
	count, size := measure.Number(2), measure.Number(3)
	key := func(i int) string { return fmt.Sprintf("/bench/%d", i) }
	value := func(i int) []byte { return []byte(fmt.Sprintf("%d %s", i, strings.Repeat("x", size))[:size]) }
	if os.Args[1] == "put" {
		measure.Times(count, func(i int) { measure.Check(mesh[0].PutValue(ctx, key(i), value(i))) })
		return
	}
	for i := range count + measure.WarmUps {
		measure.Check(mesh[0].PutValue(ctx, key(i), value(i)))
	}
	measure.Times(count, func(i int) {
		got, err := mesh[nodes/2].GetValue(ctx, key(i))
		measure.Check(err)
		if string(got) != string(value(i)) {
			measure.Check(fmt.Errorf("%q is not what was put", got))
		}
	})
}

// start makes the nodes, connects each with each and waits until all know all.
func start(ctx context.Context) []*kaddht.IpfsDHT {
	var mesh []*kaddht.IpfsDHT
	for range nodes {
		node, err := libp2p.New(
			libp2p.PrivateNetwork(pnet.PSK(make([]byte, 32))),
			libp2p.Transport(tcp.NewTCPTransport),
			libp2p.Security(noise.ID, noise.New),
			libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
			libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		)
		measure.Check(err)
		one, err := kaddht.New(node,
			kaddht.Mode(kaddht.ModeServer),
			kaddht.ProtocolPrefix("/bench"),
			kaddht.DisableAutoRefresh(),
			kaddht.Validator(record.NamespacedValidator{"bench": any{}}),
		)
		measure.Check(err)
		for _, other := range mesh {
			measure.Check(node.Connect(ctx, peer.AddrInfo{ID: other.Host().ID(), Addrs: other.Host().Addrs()}))
		}
		mesh = append(mesh, one)
	}
	until := time.Now().Add(settle)
	for _, one := range mesh {
		for one.RoutingTable().Size() < nodes-1 {
			if time.Now().After(until) {
				measure.Check(fmt.Errorf("a routing table knows %d of %d", one.RoutingTable().Size(), nodes-1))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return mesh
}
