package stack

import (
	"errors"
	"testing"
)

func TestLastInFirstOut(t *testing.T) {
	var s Stack
	s.Push(1)
	s.Push(2)
	for _, want := range []int{2, 1} {
		if got, err := s.Pop(); err != nil || got != want {
			t.Fatalf("got %d, %v; want %d", got, err, want)
		}
	}
	if _, err := s.Pop(); !errors.Is(err, ErrEmpty) {
		t.Fatalf("got %v", err)
	}
}
