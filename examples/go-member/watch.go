package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// subscription is what a peer says of one topic: that it is subscribed to it from now on, or no longer.
type subscription struct {
	Peer       string `json:"peer"`
	Topic      string `json:"topic"`
	Subscribed bool   `json:"subscribed"`
}

// watch prints the subscriptions of the peers it is connected to, each as JSON on one line, until it is
// interrupted or its time is over.
func watch(ctx context.Context, agent string, key []byte) error {
	watcher, err := join(ctx, agent, key, tasksTopic, pubsub.WithAppSpecificRpcInspector(printSubscriptions))
	if err != nil {
		return errNoConnection{err}
	}
	defer watcher.close()
	fmt.Fprintln(os.Stderr, "member", watcher.host.ID(), "is connected")
	<-ctx.Done()
	return nil
}

// printSubscriptions sees all that a peer sends over gossipsub. A peer names all its topics when it connects,
// and later each one that it joins or leaves.
func printSubscriptions(from peer.ID, sent *pubsub.RPC) error {
	for _, one := range sent.GetSubscriptions() {
		line, err := json.Marshal(subscription{from.String(), one.GetTopicid(), one.GetSubscribe()})
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return nil
}
