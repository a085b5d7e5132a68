package httpcoalesce

import (
	"net/http"
	"time"
)

// A verdict says with whom a response may be shared.
type verdict struct {
	share bool
	vary  []string  // with requests that are equal in these fields
	until time.Time // with requests that come before; zero: any time
}

// judge applies RFC 9111 to a response whose header has just been written. Section 4
// allows to collapse requests if the response may be stored, and may be reused for
// the requests in question.
func judge(guarded bool, status int, header http.Header, now time.Time) verdict {
	vary, ok := parseVary(header["Vary"])
	v := verdict{vary: vary}
	if !ok || len(vary) > maxVary || len(header["Set-Cookie"]) > 0 || status < 200 || status == http.StatusPartialContent {
		return v
	}
	cc, ok := parseResponseDirectives(header["Cache-Control"])
	if !ok || cc.private || cc.noStore || cc.noCache || guarded && !cc.public && !cc.mustRevalidate && !cc.hasShared {
		return v
	}
	if !sharedByDefault(status) && (cc.mustUnderstand || !cc.public && !cc.hasShared && !cc.hasMaxAge && len(header["Expires"]) == 0) {
		return v
	}
	if left, explicit := cc.freshFor(header, now); explicit {
		if left <= 0 {
			return v
		}
		v.until = now.Add(left)
	}
	v.share = true
	return v
}

// sharedByDefault says whether a response with this status may be shared if it does
// not say anything about it. Those below 500 and 501 may be stored without being
// asked to (RFC 9110, section 15.1), and 304 answers equal conditions. The other
// errors of the server are ours: to run what fails again for each client that waited
// would multiply the load of a server that has too much of it.
func sharedByDefault(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 304, 308, 404, 405, 410, 414,
		500, 501, 502, 503, 504:
		return true
	}
	return false
}

// responseDirectives are those of RFC 9111, section 5.2.2, and RFC 5861, section 3,
// that matter here.
type responseDirectives struct {
	private, noStore, noCache, public, mustUnderstand bool
	mustRevalidate, proxyRevalidate                   bool

	hasMaxAge, hasShared              bool
	maxAge, shared, whileRevalidating time.Duration
}

// parseResponseDirectives returns false if there is anything that cannot be
// understood, and so might forbid what we do. Of directives that are repeated, the
// stricter counts. private and no-cache with a list of fields forbid to share only
// these fields, but a response without them is not the one that the handler wrote.
func parseResponseDirectives(lines []string) (d responseDirectives, ok bool) {
	swr := false
	ok = parseDirectives(lines, func(name, value string, _ bool) {
		switch name {
		case "private":
			d.private = true
		case "no-store":
			d.noStore = true
		case "no-cache":
			d.noCache = true
		case "public":
			d.public = true
		case "must-understand":
			d.mustUnderstand = true
		case "must-revalidate":
			d.mustRevalidate = true
		case "proxy-revalidate":
			d.proxyRevalidate = true
		case "max-age":
			strictest(&d.maxAge, &d.hasMaxAge, value)
		case "s-maxage":
			strictest(&d.shared, &d.hasShared, value)
		case "stale-while-revalidate":
			strictest(&d.whileRevalidating, &swr, value)
		}
	})
	return d, ok
}

// strictest keeps the smallest of the values of a directive.
func strictest(d *time.Duration, has *bool, value string) {
	s := seconds(value)
	if *has {
		s = min(s, *d)
	}
	*d, *has = s, true
}

// freshFor returns for how long the response may be given to further requests, and
// whether it says so at all (RFC 9111, sections 4.2.1 to 4.2.4). Being stale at once
// it may still be shared for as long as stale-while-revalidate says.
func (d *responseDirectives) freshFor(header http.Header, now time.Time) (left time.Duration, explicit bool) {
	if !d.hasShared && !d.hasMaxAge && len(header["Expires"]) == 0 {
		return 0, false
	}
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		date = now
	}
	switch {
	case d.hasShared:
		left = d.shared
	case d.hasMaxAge:
		left = d.maxAge
	default:
		if expires, err := http.ParseTime(header.Get("Expires")); err == nil {
			left = expires.Sub(date)
		}
	}
	left -= max(now.Sub(date).Truncate(time.Second), seconds(header.Get("Age")), 0)
	if !d.mustRevalidate && !d.proxyRevalidate && !d.hasShared {
		left += d.whileRevalidating
	}
	return left, true
}
