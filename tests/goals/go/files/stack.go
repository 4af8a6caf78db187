// Package stack holds numbers, last in, first out.
package stack

import (
	"errors"
	"fmt"
)

// ErrEmpty says that there is nothing to take.
var ErrEmpty = errors.New("the stack is empty")

// Stack holds numbers.
type Stack struct{ items []int }

// Push puts a number on top.
func (s Stack) Push(item int) { s.items = append(s.items, item) }

// Pop takes the number on top.
func (s Stack) Pop() (int, error) {
	if len(s.items) == 0 {
		return 0, ErrEmpty
	}
	top := s.items[len(s.items)-1]
	s.items = s.items[:len(s.items)-1]
	return top, nil
}
