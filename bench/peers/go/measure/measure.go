// Package measure times something many times over and prints what it took.
package measure

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
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
