#!/usr/bin/env bash
# Running parts of the work one after another or side by side, timing each. Meant to be sourced.
#
# Parts that run side by side write to a file of their own, shown in one piece when the part ends, so that nothing
# interleaves. When one fails, the others are stopped, and what the failed one said comes last.

declare -A PART_NAMES PART_STARTS
declare -a PART_SECONDS

seconds_since() {
  awk -v start="$1" -v now="${EPOCHREALTIME}" 'BEGIN { printf "%.1f", now - start }'
}

record_seconds() {
  PART_SECONDS+=("$(printf '%7.1f s  %s' "$1" "$2")")
}

run_step() {
  local name="$1" start="${EPOCHREALTIME}"
  shift
  CURRENT_STEP="${name}"
  "$@"
  record_seconds "$(seconds_since "${start}")" "${name}"
  CURRENT_STEP=''
}

start_part() {
  local name="$1"
  shift
  echo "default-ec2: ${name} started"
  # Job control gives each part a process group, so that stopping a part stops its children too.
  set -m
  ("$@") >"${WORK_FOLDER}/${name}.log" 2>&1 </dev/null &
  set +m
  PART_NAMES[$!]="${name}"
  PART_STARTS[$!]="${EPOCHREALTIME}"
}

stop_parts() {
  local process
  for process in "${!PART_NAMES[@]}"; do
    kill -TERM -- "-${process}" 2>/dev/null || true
  done
  wait
  PART_NAMES=()
}

show_log() {
  # dpkg's first lines on a package say nothing that its last do not.
  grep -vE '^(Selecting previously unselected|Preparing to unpack|\(Reading database)' "${WORK_FOLDER}/$1.log" \
    | sed "s/^/[$1] /" || true
}

wait_for_parts() {
  local process status name seconds
  while ((${#PART_NAMES[@]})); do
    status=0
    wait -n -p process "${!PART_NAMES[@]}" || status=$?
    name="${PART_NAMES[${process}]}"
    seconds="$(seconds_since "${PART_STARTS[${process}]}")"
    unset "PART_NAMES[${process}]"
    if ((status != 0)); then
      stop_parts
      show_log "${name}"
      CURRENT_STEP=''
      echo "default-ec2: the part ${name} failed with exit code ${status} after ${seconds} s; its output is above" >&2
      exit 1
    fi
    show_log "${name}"
    echo "default-ec2: ${name} done in ${seconds} s"
    record_seconds "${seconds}" "${name}"
  done
}

report_seconds() {
  echo "default-ec2: seconds for each part"
  record_seconds "${SECONDS}" 'in all'
  printf '%s\n' "${PART_SECONDS[@]}"
}

say_which_step_failed() {
  local status=$?
  stop_parts
  if ((status != 0)) && [[ -n "${CURRENT_STEP:-}" ]]; then
    echo "default-ec2: the part ${CURRENT_STEP} failed with exit code ${status}; its output is above" >&2
  fi
}
trap say_which_step_failed EXIT
trap 'exit 143' TERM INT HUP
