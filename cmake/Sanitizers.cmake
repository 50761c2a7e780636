# gcc warns of less certain things when it instruments: presets with a sanitizer or coverage do not make
# warnings errors; dev, release and clang do.
set(SANITIZE "" CACHE STRING "Comma-separated sanitizers for every target")
option(COVERAGE "Count which lines the tests reach" OFF)
if(SANITIZE)
    target_compile_options(project_options INTERFACE
        -fsanitize=${SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(project_options INTERFACE -fsanitize=${SANITIZE})
endif()
if(COVERAGE)
    target_compile_options(project_options INTERFACE --coverage)
    target_link_options(project_options INTERFACE --coverage)
endif()
