#!/bin/sh
# A worker's health, by the file that it touches at every heartbeat. Asking Celery ("inspect ping") would cost seconds
# of CPU.
#
# Healthy while the file is younger than 30 s. Docker restarts what ends, not what is unhealthy: a worker that has been up
# and then silent for three minutes is ended here (all processes but PID 1, which is Docker's init), and the restart
# policy starts it anew. What it had not stored is rendered again. While a model loads, and while Redis or the store is
# away, the heartbeat goes on.
beat="${PRINTROOM_HEARTBEAT_FILE:-/tmp/printroom-heartbeat}"
[ -n "$(find "$beat" -newermt '-30 seconds' 2>/dev/null)" ] && exit 0
if [ -n "$(find "$beat" ! -newermt '-180 seconds' 2>/dev/null)" ]; then
    echo "silent for three minutes: ended"
    ${PRINTROOM_HEALTH_END:-kill -9 -1}
fi
exit 1
