package main

import (
	"crypto/rand"
	"time"
)

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newTask is the data of a task_announcement; only the title is required.
func newTask(language, command string) map[string]any {
	return map[string]any{
		"task_id":   ulid(time.Now()),
		"title":     "A task from Go",
		"language":  language,
		"commands":  []string{command},
		"timeout_s": 60,
	}
}

// ulid is 48 bits of milliseconds and 80 random bits in 26 characters of Crockford's base 32.
func ulid(now time.Time) string {
	var raw [16]byte
	milliseconds := uint64(now.UnixMilli())
	for i := range 6 {
		raw[i] = byte(milliseconds >> (8 * (5 - i)))
	}
	_, _ = rand.Read(raw[6:]) // never fails since Go 1.24
	text := make([]byte, 26)
	for i := range text {
		// 26 characters hold 130 bits: the first has two bits of padding in front.
		value := byte(0)
		for bit := i*5 - 2; bit < i*5+3; bit++ {
			value <<= 1
			if bit >= 0 {
				value |= raw[bit/8] >> (7 - bit%8) & 1
			}
		}
		text[i] = crockford[value]
	}
	return string(text)
}
