package shed

import (
	"fmt"
	"math"
	"time"
)

// Level is how much a [Shedder] sheds, in classes from the bottom: 0 is nothing, 0.5
// is half of the background requests, 2.25 is all of the background and sheddable and
// a quarter of the default ones, 4 is everything.
type Level float64

// Shed returns the part of a class that is shed, from 0 to 1.
func (l Level) Shed(c Class) float64 {
	return min(max(float64(l)-float64(c.index()), 0), 1)
}

// String names the highest class that is shed, and its part: "sheddable 25%". All
// below it is shed as a whole. It is "nothing" if nothing is shed.
func (l Level) String() string {
	if !(l > 0) {
		return "nothing"
	}
	c := Class(min(math.Ceil(float64(l)), classes)-1) + Background
	return fmt.Sprintf("%v %.3g%%", c, 100*l.Shed(c))
}

// level is a Level in whole numbers, so that the borders of the classes are met
// exactly.
type level int64

// whole is one class.
const whole level = 1e9

// of returns the part of the class with an index that is shed, from 0 to whole.
func (l level) of(i int) level { return min(max(l-level(i)*whole, 0), whole) }

// begun returns how many classes are shed at least in part.
func (l level) begun() level { return (l + whole - 1) / whole }

// done returns how many classes are shed as a whole.
func (l level) done() level { return l / whole }

func (l level) public() Level { return Level(l) / Level(whole) }

// distance returns how far the level gets in elapsed nanoseconds if it takes over to
// get through one class. It is finite.
func distance(elapsed int64, over time.Duration) float64 {
	return float64(whole) * float64(elapsed) / float64(over)
}

// raised returns the level, d higher but not above top. The way through a class of
// which there are no requests costs nothing: to shed it sheds no load.
func (l level) raised(d float64, top level, busy [classes]bool) level {
	left := level(min(math.Round(d), float64(classes*whole)))
	for left > 0 && l < top {
		end := (l.done() + 1) * whole
		way := end - l
		if busy[l.done()] {
			way = min(way, left)
			left -= way
		}
		l += way
	}
	return l
}

// belowCritical is the level at which all but critical requests are shed.
const belowCritical = whole * (classes - 1)

// lowered returns the level, lower by elapsed nanoseconds but not below 0. A class takes
// restoreOver, the critical one criticalOver. It passes over no class: that there are no
// requests of one may well be because they were shed.
func (l level) lowered(elapsed int64, restoreOver, criticalOver time.Duration) level {
	if above := l - belowCritical; above > 0 {
		d := distance(elapsed, criticalOver)
		if d < float64(above) {
			return l - level(math.Round(d))
		}
		elapsed -= int64(float64(elapsed) * float64(above) / d)
		l = belowCritical
	}
	return l - level(min(math.Round(distance(elapsed, restoreOver)), float64(l)))
}

// back returns how long the level takes to come down to where the class with an index
// is no longer shed as a whole.
func (l level) back(i int, restoreOver, criticalOver time.Duration) time.Duration {
	critical := max(l-belowCritical, 0)
	above := max(l-critical-level(i+1)*whole, 0)
	if i == classes-1 {
		critical = 0
	}
	ns := float64(above)*float64(restoreOver) + float64(critical)*float64(criticalOver)
	return time.Duration(min(ns/float64(whole), farAway))
}
