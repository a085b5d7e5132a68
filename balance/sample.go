package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// sample is a positive number and the time that it is of, in one word, so that both
// change together. The zero sample has no value.
//
// The number is a float32 without its sign and its last 7 bits: 17 significant bits. The
// time counts 16 microseconds and starts again after 208 days, the last 17 seconds of
// which stand for the future.
type sample struct{ word atomic.Uint64 }

const (
	tickShift = 14 // nanoseconds to ticks, as a power of two
	tickBits  = 40
	tickMask  = 1<<tickBits - 1

	futureTicks = 1 << 20
)

func pack(value float64, at time.Duration) uint64 {
	bits := math.Float32bits(float32(value))
	// Up or down at random, by the time: an average that fades in steps which are smaller
	// than half of the last bit would stand still if it were rounded to the nearest.
	bits += uint32(uint64(at) * 0x9e3779b97f4a7c15 >> (64 - 7))
	return uint64(bits>>7)<<tickBits | uint64(at)>>tickShift&tickMask
}

// unpack returns the value of a word and how old it is. A word of the future, which
// another goroutine wrote with a later clock, is of now.
func unpack(word uint64, now time.Duration) (value float64, age time.Duration) {
	value = float64(math.Float32frombits(uint32(word>>tickBits) << 7))
	ticks := (uint64(now)>>tickShift - word) & tickMask
	if ticks > tickMask-futureTicks {
		return value, 0
	}
	return value, time.Duration(ticks << tickShift)
}

// scale is the time in which values fade to 1/e, as a rate, since a division would
// take a third of the time of the whole.
type scale struct{ rate float64 }

func scaleOf(d time.Duration) scale { return scale{1 / float64(d)} }

// left is the part of a value that is left after its age.
func (s scale) left(age time.Duration) float64 {
	x := float64(age) * s.rate
	if x > 1.0/8 {
		return math.Exp(-x)
	}
	// The usual case, for a backend that is asked often. The first five terms of the
	// series are right to seven digits, in a fifth of the time.
	return 1 - x*(1-x*(1.0/2-x*(1.0/6-x/24)))
}
