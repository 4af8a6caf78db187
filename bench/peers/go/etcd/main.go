// The peer of a committed entry: puts through one member of an etcd cluster, by etcd's own client over gRPC.
//
//	etcd URL N B    N puts of B bytes
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
	count, size := measure.Number(2), measure.Number(3)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 10 * time.Second})
	measure.Check(err)
	defer client.Close()
	value := strings.Repeat("x", size)
	measure.Times(count, func(i int) {
		_, err := client.Put(context.Background(), "bench/"+strconv.Itoa(i), value)
		measure.Check(err)
	})
}
