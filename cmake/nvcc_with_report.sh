#!/bin/sh
# Runs nvcc (behind ccache, if that comes first) and keeps what ptxas says of every kernel under -Xptxas -v as
# OBJECT.ptxas. Anything else on stderr is passed on, as is everything when nvcc fails.
object=
previous=
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
report=$object.ptxas
"$@" 2>"$report.new"
status=$?
if [ $status -eq 0 ]; then
  grep -vE '^(ptxas info|    [0-9]+ bytes stack frame)' "$report.new" >&2
  mv "$report.new" "$report"
else
  cat "$report.new" >&2
  rm -f "$report.new" "$report"
fi
exit $status
