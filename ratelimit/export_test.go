package ratelimit

import (
	"math/big"
	"time"
	"unsafe"
)

// The doors through which the black box tests see inside.

const (
	Ways    = ways
	SetSize = unsafe.Sizeof(set{})
)

// Interval returns the time that a unit of the limit really takes, in nanoseconds.
func (l Limit) Interval() *big.Rat {
	c, err := l.compile()
	if err != nil {
		panic(err)
	}
	return big.NewRat(c.cost, c.scale)
}

// Frame returns the time that a frame reaches to either side.
func (l Limit) Frame() time.Duration {
	c, err := l.compile()
	if err != nil {
		panic(err)
	}
	return time.Duration(c.span)
}

// OnLookedUp sets a function that runs between the look-up of a key and its charge.
func (k *Keyed[K]) OnLookedUp(f func(tag uint64)) { k.table.lookedUp = f }

// Tag returns the hash of a key.
func (k *Keyed[K]) Tag(key K) uint64 { return k.tag(key) }
