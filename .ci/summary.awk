# Reads "go test -v" of any number of packages. Shows one line for a package
# that passed, everything for one that failed, each skipped test with its
# reason, each figure that a test says it measured, how to replay what failed as soon as
# that is known, and in the end how many tests there were. With -v counts=FILE, that line
# is added to FILE as well.

function show(    i) {
	for (i = 1; i <= n; i++)
		if (held[i] !~ /^(=== (RUN|PAUSE|CONT|NAME)| *--- PASS: )/)
			print held[i]
}

function forget() {
	n = 0
	delete held
}

/^ +[^ ]+\.go:[0-9]+: measured: / { print substr($0, match($0, /measured: /)) }
/^ +[^ ]+\.go:[0-9]+: to replay it: / { print substr($0, match($0, /to replay it: /)) }

/^ *--- PASS: / { passed++ }
/^ *--- FAIL: / { failed++ }

# A test tells why it skips just above or below this line.
/^ *--- SKIP: / {
	skipped++
	sub(/^ *--- SKIP: /, "")
	print "skipped: " $0 (last ~ /^ +[^ ]+\.go:[0-9]+: / ? ":" substr(last, match(last, /: /) + 1) : "")
	next
}

/^ok  \t/ { packages++; print; forget(); last = ""; next }
/^\?   \t|\[no test files\]$/ { forget(); last = ""; next }
/^FAIL\t/ { packages++; broken++; show(); print; forget(); last = ""; next }

{ held[++n] = $0; last = $0 }

END {
	show()
	line = sprintf("%s: %d tests passed, %d failed, %d skipped, in %d packages", name, passed, failed, skipped, packages)
	if (broken)
		line = line sprintf(", %d of them failed", broken)
	print line
	if (counts)
		print line >> counts
}
