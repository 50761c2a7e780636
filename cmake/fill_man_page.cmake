# Run by the build: puts what TOOL says of its options into SOURCE, and writes PAGE and COMPLETION.
foreach(format mdoc bash)
    execute_process(COMMAND ${TOOL} --help=${format} OUTPUT_VARIABLE ${format}
        OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endforeach()
set(OPTIONS "${mdoc}")
configure_file(${SOURCE} ${PAGE} @ONLY)
file(WRITE ${COMPLETION} "${bash}\n")
