// Package measure runs something many times over and prints what it took.
package measure

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// WarmUps are the runs that do not count.
const WarmUps = 50

// Times runs `once` and prints how long each run took, as a JSON array of microseconds.
func Times(count int, once func(int)) {
	taken := make([]float64, 0, count)
	for i := range count + WarmUps {
		started := time.Now()
		once(i)
		if i >= WarmUps {
			taken = append(taken, float64(time.Since(started).Nanoseconds())/1000)
		}
	}
	Print(taken)
}

// Print prints figures as a JSON array.
func Print(figures []float64) {
	Check(json.NewEncoder(os.Stdout).Encode(figures))
}

// Rate runs `once` in so many goroutines for so many seconds, each with numbers of its own, and prints how often it ran
// in a second, as a JSON array of that one number.
func Rate(seconds, goroutines int, once func(int)) {
	var ran atomic.Int64
	var group sync.WaitGroup
	started := time.Now()
	until := started.Add(time.Duration(seconds) * time.Second)
	for g := range goroutines {
		group.Go(func() {
			for i := g; time.Now().Before(until); i += goroutines {
				once(i)
				ran.Add(1)
			}
		})
	}
	group.Wait()
	Check(json.NewEncoder(os.Stdout).Encode([]float64{float64(ran.Load()) / time.Since(started).Seconds()}))
}

// Number is the argument at an index.
func Number(index int) int {
	if index >= len(os.Args) {
		Check(fmt.Errorf("argument %d is missing", index))
	}
	value, err := strconv.Atoi(os.Args[index])
	Check(err)
	return value
}

// Check ends the program at an error.
func Check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
