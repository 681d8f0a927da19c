#!/bin/sh
echo 'run_tags = {}'
