package httpgather

import (
	"mime"
	"strconv"
	"strings"
)

const (
	ndjsonType  = "application/x-ndjson"
	jsonType    = "application/json"
	problemType = "application/problem+json"
)

// negotiate returns the media type to answer with: NDJSON, unless the client prefers
// a JSON array. It is empty if the client wants neither.
func negotiate(accept []string) string {
	ranges := parseAccept(accept)
	if len(ranges) == 0 {
		return ndjsonType
	}
	lines, array := quality(ranges, ndjsonType), quality(ranges, jsonType)
	switch {
	case lines == 0 && array == 0:
		return ""
	case array > lines:
		return jsonType
	}
	return ndjsonType
}

// mediaRange is one element of the field Accept.
type mediaRange struct {
	name string // lower case
	q    float64
}

// parseAccept reads the elements that are well-formed.
func parseAccept(fields []string) (ranges []mediaRange) {
	for _, field := range fields {
		for _, element := range elements(field) {
			name, params, err := mime.ParseMediaType(element)
			if err != nil || !strings.Contains(name, "/") {
				continue
			}
			q := 1.0
			if text, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
					continue
				}
			}
			if name == "application/ndjson" {
				name = ndjsonType
			}
			ranges = append(ranges, mediaRange{name, q})
		}
	}
	return ranges
}

// elements splits a list at the commas that are not in quotes.
func elements(field string) (list []string) {
	quoted, escaped, start := false, false, 0
	for i := range len(field) {
		switch c := field[i]; {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			list = append(list, field[start:i])
			start = i + 1
		}
	}
	return append(list, field[start:])
}

// quality is that of the most specific range which includes the type, 0 without one.
func quality(ranges []mediaRange, mediaType string) float64 {
	kind, _, _ := strings.Cut(mediaType, "/")
	for _, name := range []string{mediaType, kind + "/*", "*/*"} {
		best, found := 0.0, false
		for _, r := range ranges {
			if r.name == name {
				best, found = max(best, r.q), true
			}
		}
		if found {
			return best
		}
	}
	return 0
}
