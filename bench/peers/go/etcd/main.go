// The peer of committed entries: puts through one member of an etcd cluster, by etcd's own client over gRPC.
//
//	etcd put URL N B       N puts of B bytes, one after another
//	etcd rate URL S B P    puts of B bytes by P putters for S seconds
package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"chorus.example/bench-peers/measure"
)

func main() {
	size := measure.Number(4)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[2]}, DialTimeout: 10 * time.Second})
	measure.Check(err)
	defer client.Close()
	value := strings.Repeat("x", size)
	put := func(i int) {
		_, err := client.Put(context.Background(), "bench/"+strconv.Itoa(i), value)
		measure.Check(err)
	}
	if os.Args[1] == "rate" {
		measure.Rate(measure.Number(3), measure.Number(5), put)
		return
	}
	measure.Times(measure.Number(3), put)
}
