package shard

import "unsafe"

// IndexBytes is the memory that the tables of the look-up take.
func (m *Map) IndexBytes() int {
	size := 4*len(m.index.table) + 8*len(m.index.ends) + int(unsafe.Sizeof(crowd{}))*len(m.index.crowds)
	for _, c := range m.index.crowds {
		size += 4 * len(c.table)
	}
	return size
}
