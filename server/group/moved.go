package group

import "github.com/schedd/schedd/raftstore"

// moved returns where primaries of the group are now, by where it has them, of those
// that are elsewhere by their own word. Each must have answered where it says that it
// is, and be on record there, too, where it is here: or it is of another group, of
// which the primaries have the same names. When two would be at one address, it is
// none, or Raft would take one for two. It is pure.
func moved(self raftstore.Server, group []raftstore.Server, answers []other) map[string]string {
	to, taken := map[string]string{}, map[string]bool{}
	for _, v := range group {
		is := v.Address
		if v.ID == self.ID {
			is = self.Address
		}
		for _, o := range answers {
			if o.GetPrimaryId() == v.ID && o.GetRecordedAddress() == v.Address && o.GetClusterAddress() == o.address {
				is = o.address
			}
		}
		if taken[is] {
			return nil
		}
		taken[is] = true
		if is != v.Address && v.ID != self.ID {
			to[v.Address] = is
		}
	}
	return to
}
