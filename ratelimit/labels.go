package ratelimit

import (
	"fmt"
	"iter"
	"time"
)

// labels are the beginnings of the keys in the slots of a table, without a pointer: a
// byte with the length, and the text.
type labels struct {
	width int // of a text; 0 for none
	text  []byte
}

func (l *labels) make(slots, width int) {
	l.width = width
	if width > 0 {
		l.text = make([]byte, slots*(width+1))
	}
}

// write runs under the lock of the slot's set.
func (l *labels) write(slot int, label string) {
	if l.width > 0 {
		at := l.text[slot*(l.width+1):][:l.width+1]
		at[0] = byte(copy(at[1:], label))
	}
}

// read runs under the lock of the slot's set.
func (l *labels) read(slot int) string {
	if l.width == 0 {
		return ""
	}
	at := l.text[slot*(l.width+1):]
	return string(at[1 : 1+at[0]])
}

// labelOf returns what is remembered of a key.
func labelOf[K comparable](key K) string {
	if s, ok := any(key).(string); ok {
		return s
	}
	return fmt.Sprint(key)
}

// debtor is a key that owes something.
type debtor struct {
	label      string
	resetAfter time.Duration
}

// debtors yields those whose word lies ahead, set by set. No lock is held while it
// yields.
func (t *table) debtors(ns int64) iter.Seq[debtor] {
	return func(yield func(debtor) bool) {
		for i := range t.sets {
			var found [ways]debtor
			for _, d := range t.debtorsOf(i, ns, found[:0]) {
				if !yield(d) {
					return
				}
			}
		}
	}
}

func (t *table) debtorsOf(i int, ns int64, found []debtor) []debtor {
	s := &t.sets[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := t.clamp(ns - t.base)
	for way, tag := range s.tags {
		if tag == 0 || s.word[way] <= now {
			continue
		}
		label := t.labels.read(i*ways + way)
		if label == "" {
			label = fmt.Sprintf("#%016x", tag)
		}
		found = append(found, debtor{label, t.duration(s.word[way] - now)})
	}
	return found
}
