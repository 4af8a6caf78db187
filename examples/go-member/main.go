// A member of a CHORUS mesh in Go, written from docs/protocol.md alone: it connects with the network key,
// publishes one task on chorus/tasks and reads its completion on chorus/coordination/v1.
//
//	go-member -license dev-123 -agent /ip4/127.0.0.1/tcp/9000/p2p/12D3… -- python3 -c 'print(6*7)'
//
// With -topic it publishes elsewhere, such as on chorus/role/reviewer for agents of that role alone. With
// -watch it publishes nothing, and prints which topics the agent joins and leaves:
//
//	go-member -license dev-123 -agent /ip4/127.0.0.1/tcp/9000/p2p/12D3… -watch -timeout 1h
//
// Exit codes: 0 completed or watched, 1 failed, 2 no connection, 3 no answer in time, 4 refused.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
)

const (
	exitFailed       = 1
	exitNoConnection = 2
	exitNoAnswer     = 3
	exitRefused      = 4
)

var (
	errTaskFailed  = errors.New("the task failed")
	errTaskRefused = errors.New("the task was refused")
)

// errNoConnection wraps everything that went wrong before the mesh could hear us.
type errNoConnection struct{ cause error }

func (e errNoConnection) Error() string { return "no connection: " + e.cause.Error() }

func main() {
	agent := flag.String("agent", "", "multiaddr of any agent, ending in /p2p/<peer id>")
	license := flag.String("license", "dev-123", "development licence the cluster secret is derived from")
	secret := flag.String("secret", os.Getenv("CHORUS_CLUSTER_SECRET"), "cluster secret, instead of a development licence")
	secretFile := flag.String("secret-file", os.Getenv("CHORUS_CLUSTER_SECRET_FILE"), "file with the cluster secret")
	topic := flag.String("topic", tasksTopic, "where to publish the task")
	language := flag.String("language", "python", "language of the task")
	watching := flag.Bool("watch", false, "print the agent's subscriptions as JSON lines, and publish nothing")
	limit := flag.Duration("timeout", 2*time.Minute, "how long to wait for the completion, or to watch")
	flag.Parse()
	if *agent == "" || (flag.NArg() == 0) != *watching {
		fmt.Fprintln(os.Stderr, "usage: go-member -agent MULTIADDR [-secret-file FILE | -license dev-…] -watch | -- COMMAND…")
		os.Exit(exitNoConnection)
	}
	if *secret == "" && *secretFile != "" {
		content, err := os.ReadFile(*secretFile)
		if err != nil {
			fmt.Fprintln(os.Stderr, "secret-file:", err)
			os.Exit(exitNoConnection)
		}
		*secret = strings.TrimSuffix(string(content), "\n")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()

	var err error
	if key := networkKey(*secret, *license); *watching {
		err = watch(ctx, *agent, key)
	} else {
		err = run(ctx, *agent, key, *topic, newTask(*language, shellJoin(flag.Args())))
	}
	var unreachable errNoConnection
	switch {
	case err == nil:
		return
	case errors.As(err, &unreachable):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitNoConnection)
	case errors.Is(err, errTaskFailed):
		os.Exit(exitFailed)
	case errors.Is(err, errTaskRefused):
		os.Exit(exitRefused)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitNoAnswer)
	}
}

func run(ctx context.Context, agent string, key []byte, topic string, task map[string]any) error {
	member, err := join(ctx, agent, key, topic)
	if err != nil {
		return errNoConnection{err}
	}
	defer member.close()
	fmt.Fprintln(os.Stderr, "member", member.host.ID(), "is connected")
	if err := member.publish(ctx, topic, "task_announcement", task); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "published task", task["task_id"])
	return awaitCompletion(ctx, member.news, task["task_id"].(string))
}

// awaitCompletion prints the message that ends the task, as JSON on one line.
func awaitCompletion(ctx context.Context, news *pubsub.Subscription, taskID string) error {
	for {
		message, err := news.Next(ctx)
		if err != nil {
			return fmt.Errorf("no completion of %s was heard: %w", taskID, err)
		}
		var heard envelope
		if json.Unmarshal(message.Data, &heard) != nil || heard.From != message.GetFrom().String() {
			continue // the envelope speaks for its signer, or for nobody
		}
		var about struct {
			TaskID  string `json:"task_id"`
			Attempt *int   `json:"attempt"`
		}
		if json.Unmarshal(heard.Data, &about) != nil || about.TaskID != taskID {
			continue
		}
		switch heard.Type {
		case "task_complete":
			fmt.Println(string(message.Data))
			return nil
		case "task_failed":
			fmt.Println(string(message.Data))
			return errTaskFailed
		case "task_decline":
			fmt.Println(string(message.Data))
			if about.Attempt == nil {
				return errTaskRefused // not one attempt but the announcement is declined
			}
		default:
			fmt.Fprintln(os.Stderr, heard.Type, "from", heard.From)
		}
	}
}

// shellJoin quotes the arguments for the one command line a task carries.
func shellJoin(arguments []string) string {
	quoted := make([]string, len(arguments))
	for i, argument := range arguments {
		quoted[i] = "'" + strings.ReplaceAll(argument, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
