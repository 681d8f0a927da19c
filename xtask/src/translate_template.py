"""Translates a SAM template to the CloudFormation template that AWS would make of it, and writes that to a file.

The arguments are the template, the file, and the region. It needs no network: there is no client for it to ask with, so a
template that AWS has to be asked about (managed policies by name) fails here.
"""

import json
import os
import sys

from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

template_path, result_path, region = sys.argv[1:]
os.environ["AWS_DEFAULT_REGION"] = region
with open(template_path, encoding="utf-8") as text:
    template = yaml_parse(text.read())

# What `sam package` does: paths on this machine become objects in a bucket. The translator takes nothing else.
for resource in template["Resources"].values():
    for path in ("CodeUri", "DefinitionUri"):
        if path in resource.get("Properties", {}):
            resource["Properties"][path] = "s3://packaged/" + resource["Properties"][path].lstrip("./")

parameters = {
    name: declaration["Default"] for name, declaration in template["Parameters"].items() if "Default" in declaration
}


class NoPolicies:
    def load(self):
        raise RuntimeError("the template names a managed policy that only AWS knows the ARN of")


try:
    translated = transform(template, parameters, NoPolicies())
except InvalidDocumentException as error:
    sys.exit("\n".join(cause.message for cause in error.causes))
with open(result_path, "w", encoding="utf-8") as result:
    json.dump(translated, result, indent=2)
