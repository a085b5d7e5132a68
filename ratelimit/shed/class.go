package shed

import (
	"fmt"
	"strings"
)

// Class is how much a request matters. Requests of a higher class are served first and
// shed last. The four classes are those of Stripe's load shedder ("Scaling your API
// with rate limiters", 2017), whose traffic was critical methods, other writes, reads
// and tests.
//
// The zero value is [Default]: a request that nobody classified is neither critical nor
// the first to go. Values above Critical are treated as Critical, values below
// Background as Background.
type Class int8

const (
	// Background is work that nobody waits for: tests, prefetching, batches, backfills.
	Background Class = iota - 2

	// Sheddable is work that can be retried or served worse: reads, search, previews.
	Sheddable

	// Default is everything else.
	Default

	// Critical is what the service exists for: payments, logins, health checks.
	Critical
)

// classes is the number of classes.
const classes = 4

// index returns 0 for Background to 3 for Critical.
func (c Class) index() int { return int(min(max(c, Background), Critical) - Background) }

var classNames = [classes]string{"background", "sheddable", "default", "critical"}

// String returns "background", "sheddable", "default" or "critical".
func (c Class) String() string { return classNames[c.index()] }

// ParseClass reads what String writes, in upper or lower case, and the empty text as
// Default. Returns an error that names the text otherwise.
func ParseClass(text string) (Class, error) {
	if text == "" {
		return Default, nil
	}
	for i, name := range classNames {
		if strings.EqualFold(text, name) {
			return Class(i) + Background, nil
		}
	}
	return Default, fmt.Errorf("shed: the class is %.40q, expected background, sheddable, default or critical", text)
}
